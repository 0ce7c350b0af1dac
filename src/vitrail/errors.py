"""Everything Vitrail raises on purpose.

VitrailError
├── ConfigError       a wrong setting, name or argument: exit code 2
├── DataError         images or labels that are missing, unreadable or unfit
├── CheckpointError   a run, checkpoint or model file that cannot be written, read or continued
├── TrainingError     a training that cannot go on, such as a loss that is not finite
├── ExportError       an export that failed, or failed its proof
└── Interrupted       stopped by a signal after a checkpoint: exit code 128 + the signal's number
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable
from typing import Any


class VitrailError(Exception):
    """The root: `except VitrailError` catches whatever a user can cause."""

    exit_code = 1


class ConfigError(VitrailError):
    """A wrong setting, name or argument."""

    exit_code = 2


class DataError(VitrailError):
    """Images or labels that are missing, unreadable or unfit."""


class CheckpointError(VitrailError):
    """A run, checkpoint or model file that cannot be written, read or continued."""


class TrainingError(VitrailError):
    """A training that cannot go on."""


class ExportError(VitrailError):
    """An export that failed, or failed its proof."""


class Interrupted(VitrailError):
    """Training stopped by a signal; its state is saved and `--resume` continues it."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def suggest(name: str, valid: Iterable[str]) -> str:
    """Give " Did you mean 'x'?" with the nearest of `valid`, or "" where none is near."""
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def from_validation(error: Any, prefix: str = "") -> ConfigError:
    """One sentence for a pydantic ValidationError: the first key that is wrong, its value, and what is allowed."""
    first = error.errors()[0]
    key = ".".join([prefix, *(str(part) for part in first["loc"] if not isinstance(part, int))]).strip(".")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return ConfigError(message)
    return ConfigError(f"{key}={first['input']!r} is not valid: {message[0].lower()}{message[1:]}")
