"""The list of models: what each costs, and where weights of it are published."""

from __future__ import annotations

import json
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vitrail.errors import ConfigError, suggest
from vitrail.models import MODELS, model_config
from vitrail.models.published import published_weights, timm_weights

# A model -> its parameters and the multiply-adds of one image. Counting them takes a quarter of a minute, so they are
# kept; tests compare them with what `count_parameters` and `count_operations` count, and print the lines that differ.
COSTS = Path(__file__).with_name("costs.json")
_TIMM = "timm:"


def list_models(pattern: str | None = None) -> list[dict[str, Any]]:
    """The models whose names hold `pattern`, or match it if it has wildcards: what `vitrail models --json` prints.

    `timm:PATTERN` lists timm's own, whose parameters and operations are not counted.
    Raises ConfigError, with the nearest valid name, where none matches.
    """
    if pattern is not None and pattern.startswith(_TIMM):
        return _timm_rows(pattern)
    costs: dict[str, tuple[int, int]] = json.loads(COSTS.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    names = [*MODELS] if pattern is None else _matching(pattern, MODELS)
    for name in names:
        config = model_config(name)
        parameters, operations = costs[name]
        rows.append(
            {
                "model": name,
                "family": config.kind,
                "parameters": parameters,
                "image_size": _text(config.image_size),
                "gflops": operations / 1e9,
                "weights": [weights._asdict() for weights in published_weights(name, config)],
            }
        )
    return rows


def _matching(pattern: str, names: Collection[str]) -> list[str]:
    wanted = pattern.lower()
    if not any(wildcard in wanted for wildcard in "*?["):
        wanted = f"*{wanted}*"
    found = [name for name in names if fnmatchcase(name.lower(), wanted)]
    if not found:
        raise ConfigError(f"No model named {pattern!r}.{suggest(pattern, names)} `vitrail models` lists them")
    return found


def _timm_rows(pattern: str) -> list[dict[str, Any]]:
    from timm.models import get_pretrained_cfg
    from timm.models import list_models as list_timm_models

    rows: list[dict[str, Any]] = []
    for name in _matching(pattern, [_TIMM + name for name in list_timm_models()]):
        published = get_pretrained_cfg(name.removeprefix(_TIMM))
        rows.append(
            {
                "model": name,
                "family": "timm",
                "parameters": None,
                "image_size": None if published is None else _text(published.input_size[1:]),
                "gflops": None,
                "weights": [weights._asdict() for weights in timm_weights(name.removeprefix(_TIMM))],
            }
        )
    return rows


def _text(image_size: tuple[int, ...]) -> str:
    return "x".join(map(str, image_size))
