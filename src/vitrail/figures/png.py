"""Figures as PNG files."""
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from matplotlib.figure import Figure

from vitrail.errors import CheckpointError, ConfigError

DOTS_PER_INCH = 150


def save_figure(figure: Figure, path: str | Path) -> Path:
    """The path of the PNG written, at 150 dots per inch; folders are made as needed.

    A reader sees the old file or the whole new one, never a part. The same figure gives the same bytes.
    Raises ConfigError for a name that does not end in .png, CheckpointError where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path.name!r} does not end in .png; figures are written as PNG")
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Software holds the version of matplotlib unless it is taken out.
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):  # there is none after success, and perhaps not even its folder after failure
            partial.unlink()
    return path
