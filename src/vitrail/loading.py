"""A RUN as commands take it, ready to use: a run's model, or a published one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from vitrail.checkpoint import load_model
from vitrail.classifier import Classifier
from vitrail.engines.adaptation import SizeLike, adapted
from vitrail.engines.pytorch import TorchEngine, resolve_device
from vitrail.errors import ConfigError
from vitrail.pretrained import is_published, open_pretrained
from vitrail.runs import RunDirectory, find_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """What a RUN stands for: `directory` is the run's, None for a published model; `name` is what results call it."""

    name: str
    directory: RunDirectory | None

    def classifier(
        self, device: str, image_size: SizeLike | None = None, merge_tokens: int = 0, *, offline: bool = False
    ) -> Classifier:
        """Its model, ready to use. Raises as `vitrail.load` does."""
        target = resolve_device(device)
        if self.directory is not None:
            model, card = load_model(self.directory.path)
        else:
            pretrained = open_pretrained(self.name, offline=offline)
            for sentence in pretrained.notes:
                logger.info("%s", sentence)
            model, card = pretrained.module(), pretrained.card
        card = adapted(model, card, image_size, merge_tokens)
        return Classifier(TorchEngine(model, target), card)


def find_source(run: str | Path) -> Source:
    """What `run` stands for. Raises ConfigError if it is neither a run nor a published model."""
    if not isinstance(run, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"A {type(run).__name__} is no run; give the folder of a run, 'last', or a published model's name such as "
            "'timm:resnet18'"
        )
    if is_published(run):
        return Source(str(run), None)
    directory = find_run(run)
    return Source(str(directory.path), directory)


def check_classes(classifier: Classifier, name: str) -> None:
    """Raise ConfigError for a model without classes."""
    if not classifier.classes:
        raise ConfigError(
            f"{name} has no classes: it is a feature extractor; take its vectors with `vitrail embed`, or train a "
            "classifier that begins with it: vitrail train DATA --init"
        )
