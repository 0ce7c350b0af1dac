"""What tests of the verbs share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def photos(tmp_path, monkeypatch, write_idx) -> Path:
    """./photos in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return write_idx(Path("photos"))
