"""From the weights that a user names to those that a training begins with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vitrail import models
from vitrail.config import RunConfig, with_settings
from vitrail.errors import ConfigError
from vitrail.models.adaptation import NEW_PARTS, adapt_scaling, adapt_weights, head_names
from vitrail.models.families import AnyModelConfig
from vitrail.models.weights import check_weights, load_weights
from vitrail.pretrained import Pretrained, open_pretrained, settled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """Weights fitted to a run's model. Names that begin with one of `new` are not among them: they begin at random.

    `origin` says where they came from, ready for JSON: their name, the hash they had before they were fitted, and the
    licence if it is known.
    """

    weights: dict[str, Tensor]
    new: tuple[str, ...]
    origin: dict[str, Any]


def open_initial(init: str, named: AnyModelConfig | None, *, offline: bool) -> Pretrained:
    """The weights called `init`, of the model that the user names, if so. Raises as `open_pretrained` does."""
    pretrained = _open(init, named, offline=offline)
    for sentence in pretrained.notes:
        logger.info("%s", sentence)
    return pretrained


def _open(init: str, named: AnyModelConfig | None, *, offline: bool) -> Pretrained:
    if named is None:
        return open_pretrained(init, offline=offline)
    # Its channels, and so their statistics, are those of the data, which the weights need not have.
    named = named.model_copy(update={"mean": None, "std": None})
    return open_pretrained(init, offline=offline, named=named)


def begun_from(config: RunConfig, pretrained: Pretrained, init: str, *, model: str | None, fit: bool) -> RunConfig:
    """The config of a run that begins with these weights, on images as they are used to.

    Its model is theirs, unless the user names a `model`; with `fit`, images are also fitted to its size as theirs were.
    Mean and deviation are left to `adapt_scaling`, which needs to know the data's channels.
    """
    own = pretrained.config
    if model is None:
        changed = {"image_size": pretrained.preprocess.image_size, "mean": None, "std": None}
        update = {"model": own.model_copy(update=changed), "model_name": pretrained.card.model_name}
        config = config.model_copy(update=update)
    if fit:
        theirs = pretrained.preprocess
        config = with_settings(config, {"data.fit": theirs.fit, "data.crop_rate": theirs.crop_rate})
    return config.model_copy(update={"init": init})


def initial_weights(pretrained: Pretrained, config: RunConfig, classes: tuple[str, ...]) -> InitialWeights:
    """The weights fitted to the config's model, whose head is kept if it is for the same classes.

    Raises CheckpointError, naming the first difference, for weights of another model.
    """
    adapted, new = _fitted(pretrained, config.model, keep_head=pretrained.classes == classes)
    origin = {key: pretrained.card.provenance[key] for key in ("license", "init") if key in pretrained.card.provenance}
    return InitialWeights(adapted, new, {"weights": pretrained.name, "digest": pretrained.digest} | origin)


def _fitted(
    pretrained: Pretrained, model: AnyModelConfig, *, keep_head: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights for that model, and what the names of those begin with that it has and they lack."""
    adapted, sentences = adapt_weights(pretrained.weights, pretrained.config, model, keep_head)
    new = () if keep_head else (*NEW_PARTS, *head_names(model))
    check_weights(model, adapted, new)
    for sentence in sentences:
        logger.info("%s", sentence)
    return adapted, new


def reopened(
    config: RunConfig, classes: tuple[str, ...], began: Mapping[str, Any] | None, *, offline: bool
) -> InitialWeights:
    """The weights of a run that has no checkpoint yet, read again.

    Raises ConfigError if they are not those that it `began` with, as its journal says if it got so far.
    """
    assert config.init is not None
    found = initial_weights(_open(config.init, config.model, offline=offline), config, classes)
    if began is not None and began["digest"] != found.origin["digest"]:
        raise ConfigError(
            f"The weights of {config.init} are not those that the run began with; bring these back, or start a new run"
        )
    return found


def initial_model(name: str, settings: Mapping[str, Any], init: str, *, offline: bool) -> nn.Module:
    """The model of that name, with the weights called `init` and as many classes as asked for.

    Mean and deviation are those of the weights where `settings` do not give them. The head keeps its weights if their
    classes are as many. Raises as `vitrail.create_model` does.
    """
    pretrained = open_initial(settled(init), models.model_config(name, **settings), offline=offline)
    asked = dict(settings)
    if pretrained.classes:
        asked.setdefault("num_classes", len(pretrained.classes))
    in_chans = models.model_config(name, **asked).in_chans
    config = models.model_config(name, **{**adapt_scaling(pretrained.config, in_chans), **asked})
    keep_head = config.num_classes == len(pretrained.classes)
    weights, new = _fitted(pretrained, config, keep_head=keep_head)
    model = models.build_model(config)
    load_weights(model, weights, new)
    return model
