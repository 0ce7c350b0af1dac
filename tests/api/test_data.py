"""An audit through its verb."""

from __future__ import annotations

import pytest

import vitrail
from vitrail.errors import ConfigError


def test_an_audit_takes_paths_and_texts(photos):
    found = vitrail.audit(photos, labels=False)
    assert found.counts == vitrail.audit([str(photos)], labels=False).counts
    assert sum(map(sum, found.counts.values())) == 90


def test_an_audit_of_nothing(tmp_path):
    with pytest.raises(ConfigError, match="nothing"):
        vitrail.audit(tmp_path / "nothing")
