"""How data is read: as a run did, but for what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vitrail.config import RunConfig, with_settings
from vitrail.data.records import ReadOptions
from vitrail.data.sources import has_columns
from vitrail.errors import ConfigError
from vitrail.runs import RunDirectory

# Settings that say how data is read: their keys, and what ReadOptions calls them.
READ_SETTINGS = {f"data.{field.name}": field.name for field in fields(ReadOptions) if field.name != "offline"}
_COLUMNS = ("image_column", "label_column", "split_column", "group_column", "label_separator")


def read_options(
    directory: RunDirectory | None,
    data: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    *,
    offline: bool = False,
) -> ReadOptions:
    """How to read `data`, by default a run's own: as the run did, but for what `settings` say, as for --set.

    A run's columns are looked for in other data only where that has columns.
    Raises ConfigError for a setting that is not possible or has nothing to do with reading, and for columns of data
    that has none.
    """
    settings = settings or {}
    config = RunConfig(recipe="digits", model_name="") if directory is None else directory.config()
    asked = with_settings(config, settings).data  # an unknown name has a sentence of its own
    for key in settings:
        if key not in READ_SETTINGS:
            raise ConfigError(f"{key} says nothing about reading data; what does is {', '.join(READ_SETTINGS)}")
    if data and not has_columns(*data):
        for name in _COLUMNS:
            if settings.get(f"data.{name}") not in (None, "none", "null"):
                raise ConfigError(
                    f"data.{name}={settings[f'data.{name}']} is for tables, and {' '.join(data)} is none; leave it out"
                )
        if settings.get("data.group") == "column":
            raise ConfigError(f"data.group=column is for tables, and {' '.join(data)} is none; leave it out")
        inherited = dict.fromkeys(_COLUMNS) | {"group": None if asked.group == "column" else asked.group}
        asked = asked.model_copy(update=inherited)
    return ReadOptions(**{name: getattr(asked, name) for name in READ_SETTINGS.values()}, offline=offline)
