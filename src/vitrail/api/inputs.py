"""What callers may give in several forms, as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def sources(data: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """Where data comes from: one place, several, or () for none."""
    given = [] if data is None else [data] if isinstance(data, str | Path) else data
    return tuple(map(str, given))


def optional_path(path: str | Path | None) -> Path | None:
    """The path, or None where none is given."""
    return None if path is None else Path(path)
