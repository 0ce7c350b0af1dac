"""Runs that are there, and how two of them differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitrail import history


def list_runs(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """The runs in `folder`, or the one that it is, newest last: what `vitrail runs --json` prints.

    Raises ConfigError if `folder` is none; runs/ may be missing.
    """
    return history.list_runs(folder)


def difference(a: str | Path, b: str | Path) -> dict[str, Any]:
    """How two runs differ, and which is better on the same test images: the JSON object of `vitrail runs diff`.

    Raises ConfigError if a run is unknown, if both are the same, or if one is damaged.
    """
    return history.difference(a, b)
