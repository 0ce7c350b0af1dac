"""The list of models: what each costs, and where weights of it are published."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from typing import Any

from vitrail.errors import ConfigError, suggest
from vitrail.models import MODELS, count_operations, count_parameters, model_config
from vitrail.models.families import AnyModelConfig
from vitrail.models.published import published_weights, timm_weights

# A function that is called with the numbers of models done and in all.
Count = Callable[[int, int], None]

_TIMM = "timm:"


def list_models(pattern: str | None = None, report: Count | None = None) -> list[dict[str, Any]]:
    """The models whose names hold `pattern`, or match it if it has wildcards: what `vitrail models --json` prints.

    `timm:PATTERN` lists timm's own, whose parameters and operations are not counted.
    Raises ConfigError, with the nearest valid name, where none matches.
    """
    if pattern is not None and pattern.startswith(_TIMM):
        return _timm_rows(pattern)
    rows: list[dict[str, Any]] = []
    names = [*MODELS] if pattern is None else _matching(pattern, MODELS)
    for name in names:
        config = model_config(name)
        rows.append(
            {
                "model": name,
                "family": config.kind,
                "parameters": count_parameters(config),
                "image_size": _text(config.image_size),
                "gflops": _operations(config) / 1e9,
                "weights": [weights._asdict() for weights in published_weights(name, config)],
            }
        )
        if report is not None:
            report(len(rows), len(names))
    return rows


def _matching(pattern: str, names: Collection[str]) -> list[str]:
    wanted = pattern.lower()
    if not any(wildcard in wanted for wildcard in "*?["):
        wanted = f"*{wanted}*"
    found = [name for name in names if fnmatchcase(name.lower(), wanted)]
    if not found:
        raise ConfigError(f"No model named {pattern!r}.{suggest(pattern, names)} `vitrail models` lists them")
    return found


def _operations(config: AnyModelConfig) -> int:
    """As `count_operations`, sooner: blocks before the last are alike, so two shallow models tell a deep one's."""
    depth: int = getattr(config, "depth", 0)
    if depth <= 4:
        return count_operations(config)
    two, three = (count_operations(config.model_copy(update={"depth": shallow})) for shallow in (2, 3))
    return two + (depth - 2) * (three - two)


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
