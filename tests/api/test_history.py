"""Lists of runs, and differences, through their verbs."""

from __future__ import annotations

import pytest

import vitrail
from vitrail.errors import ConfigError


def test_runs_of_a_folder(digits_run):
    (run,) = vitrail.list_runs(digits_run.parent)
    assert run == vitrail.list_runs(str(digits_run.parent))[0]
    assert run["accuracy"] == vitrail.Run(digits_run).result["test"]["accuracy"]


def test_a_run_does_not_differ_from_itself(digits_run):
    with pytest.raises(ConfigError, match="same"):
        vitrail.difference(digits_run, digits_run)
