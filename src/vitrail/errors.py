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

import re
import signal
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
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


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The one of `valid` that `name` may be a slip of, or None where none is near."""
    wanted = name.lower()

    def likeness(entry: str) -> float:
        whole = SequenceMatcher(None, wanted, entry.lower()).ratio()
        if len(wanted) < 4:
            return whole
        # The beginning alone may be meant: vit_tniy for vit_tiny_patch16_224.
        beginning = SequenceMatcher(None, wanted, entry.lower()[: len(wanted)]).ratio()
        return max(whole, 0.95 * beginning)

    near = max(valid, key=likeness, default=None)
    return near if near is not None and likeness(near) >= 0.6 else None


def suggest(name: str, valid: Iterable[str]) -> str:
    """Give " Did you mean 'x'?" with the nearest of `valid`, or "" where none is near."""
    near = nearest(name, valid)
    return "" if near is None else f" Did you mean {near!r}?"


def some(names: Sequence[str], shown: int = 3) -> str:
    """Give the first few of many: `some(["a", "b", "c", "d", "e"])` is "a, b, c and 2 more"."""
    listed = ", ".join(names[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown:,} more"


# What to use instead, by the type of pydantic's error; braces are filled from its context.
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object of settings",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "missing": "more values",  # of a list; a setting that is missing has a sentence of its own
    "model_type": "an object of settings",
    "string_type": "text",
    "too_long": "{max_length} values",
    "too_short": "{min_length} values",
    "tuple_type": "a list of values",
}


def from_validation(error: Any) -> ConfigError:
    """One sentence for a pydantic ValidationError: the first setting that is wrong, its value, and what is allowed.

    Settings have their full dotted names. The sentences of our own validators speak of one config's settings as
    `name=value`; the names become dotted here.
    """
    first = error.errors()[0]
    path, kind, context = first["loc"], first["type"], first.get("ctx", {})
    # "<vit>" tells which of several configs was tried, and is no part of a setting's name.
    key = ".".join(part for part in path if isinstance(part, str) and not part.startswith("<"))
    if kind == "value_error":
        return ConfigError(re.sub(r"\b\w+=", rf"{key}.\g<0>" if key else r"\g<0>", str(context["error"])))
    if kind == "missing" and isinstance(path[-1], str):
        return ConfigError(f"{key} is missing")
    if kind == "extra_forbidden":
        return ConfigError(f"No setting is named {key!r}")
    wrong = f"{key}={first['input']!r} is not possible".lstrip("=")
    if kind == "literal_error":
        valid = re.findall("'(.*?)'", context["expected"])
        return ConfigError(f"{wrong}.{suggest(str(first['input']), valid)} Use one of {', '.join(valid)}")
    allowed = _ALLOWED.get(kind)
    return ConfigError(f"{wrong}; use {allowed.format(**context)}" if allowed else f"{wrong}: {first['msg']}")
