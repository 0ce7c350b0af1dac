"""The commands that make a run again, from its config: the settings in which it differs from its recipe."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from vitrail.data.named import NAMED
from vitrail.errors import VitrailError
from vitrail.models import model_config
from vitrail.recipes import recipe_function
from vitrail.reporting.report_facts import RunFacts
from vitrail.reporting.report_paths import shown_source

# What follows from the data and is found again, or has an option of its own.
_FITTED = frozenset(
    {"data.source", "data.also", "data.corrections", "training.epochs", "training.time_seconds"}
    | {f"model.{name}" for name in ("kind", "num_classes", "in_chans", "mean", "std", "padding_mask")}
)
_PLACE = "DATA"  # what stands for images that are on one machine alone


def repeating_command(facts: RunFacts) -> str:
    """The command that takes all settings and the data from the run itself, and repeats it step by step."""
    return f"vitrail train --recipe {shlex.quote(facts.name)}"


def resuming_command(facts: RunFacts) -> str:
    """The command that goes on with a run that has not finished."""
    return f"vitrail train --resume --out {shlex.quote(facts.name)}"


def spelled_command(facts: RunFacts) -> str | None:
    """The command with every setting that differs from the recipe's, for who has not the run; None if not known."""
    try:
        return " ".join(_parts(facts))
    except (VitrailError, KeyError, TypeError, AttributeError):  # a recipe or model that this version does not have
        return None


def needs_data(facts: RunFacts) -> bool:
    """Whether the commands name images by the word DATA."""
    return _PLACE in _data(facts).split()


def _parts(facts: RunFacts) -> Iterator[str]:
    config, training = facts.config, facts.config["training"]
    recipe = recipe_function(config["recipe"])()
    yield f"vitrail train {_data(facts)} --recipe {shlex.quote(config['recipe'])}"
    init, plain = config.get("init"), recipe.model_dump(mode="json")
    if init is not None:
        yield f"--init {shlex.quote(shown_source(init))}"
        plain["model"] = config["model"]  # as the weights are
    elif config["model_name"] != recipe.model_name:
        yield f"--model {shlex.quote(config['model_name'])}"
        plain["model"] = model_config(config["model_name"]).model_dump(mode="json")
    if training["time_seconds"] is not None:
        yield f"--time {training['time_seconds']:g}s"
    elif training["epochs"] != recipe.training.epochs:
        yield f"--epochs {training['epochs']}"
    yield f"--seed {config['seed']}"
    if config["data"].get("corrections"):
        yield f"--corrections {shlex.quote(facts.name + '/corrections.csv')}"
    before = dict(_flat(plain))
    for key, value in _flat(config):
        group = key.partition(".")[0]
        if group in ("data", "model", "training", "evaluation") and key not in _FITTED and value != before.get(key):
            yield f"--set {shlex.quote(f'{key}={_text(value)}')}"


def _data(facts: RunFacts) -> str:
    data = facts.config.get("data", {})
    sources = [data.get("source"), *(data.get("also") or ())]
    shown = [name if name in NAMED or str(name).startswith("hf:") else _PLACE for name in sources]
    return " ".join(dict.fromkeys(map(shlex.quote, map(str, shown))))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: Any) -> str:
    """A value as --set takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
