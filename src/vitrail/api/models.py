"""Models: made, loaded, handed over, listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vitrail import models
from vitrail.api.inputs import optional_path
from vitrail.classifier import Classifier
from vitrail.engines.adaptation import SizeLike
from vitrail.exporting.folders import Exported, export_classifier
from vitrail.initialization import initial_model
from vitrail.loading import check_classes, find_source
from vitrail.publishing import push_run
from vitrail.runs import find_run


def create_model(name: str, *, init: str | None = None, offline: bool = False, **settings: Any) -> nn.Module:
    """A model by name: `create_model("vit_tiny_patch16_224", num_classes=10)`, settings of its config.

    It takes (B, C, rows, columns) uint8 in 0..255 or float in 0..1 and gives logits (B, num_classes). It is untrained,
    but for the weights that `init` names, as for `train`; its head too, unless it has as many classes as they have.
    Raises ConfigError for an unknown name or settings that do not fit together, CheckpointError for unfit weights.
    """
    if init is None:
        return models.create_model(name, **settings)
    return initial_model(name, settings, init, offline=offline)


def load(
    run: str | Path,
    device: str = "auto",
    *,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    offline: bool = False,
) -> Classifier:
    """The classifier of a run ("last" is the newest finished one), on `device`.

    A published model is one too: "timm:<name>", "hf:<owner>/<model>" or "torchvision:<name>", downloaded unless
    `offline`, or a file or folder of weights.

    With `image_size`, such as 96 or (96, 128) rows and columns, it looks at larger, smaller or non-square images than
    in training; with `merge_tokens` it merges so many patches in each block, which is faster where there are many.
    Raises ConfigError if there is no such run, or for what does not fit its model, CheckpointError if that is missing
    or damaged.
    """
    return find_source(run).classifier(device, image_size, merge_tokens, offline=offline)


def export(run: str | Path, format: str, output: str | Path | None = None, *, offline: bool = False) -> Exported:
    """Write a run's model for another library, "timm" or "huggingface", into the folder `output`, new or empty.

    What was written is read again, and must give the same logits. Without `output` it goes to exports/<run>-<format>.
    Raises ConfigError for a model that the format cannot express, ExportError if what was written answers otherwise.
    """
    source = find_source(run)
    classifier = source.classifier("cpu", offline=offline)
    check_classes(classifier, source.name)
    return export_classifier(classifier, source.name, format, optional_path(output))


def push(run: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a finished run's model with a model card to `repository`, owner/name on the hub; gives its address.

    It is made if it is not there, with `private` for its owner alone. Images and paths of this machine stay here.
    Raises ConfigError for an unknown or unfinished run, CheckpointError if the hub refuses or is not reached.
    """
    return push_run(find_run(run), repository, private=private)


def list_models(pattern: str | None = None) -> list[dict[str, Any]]:
    """The models whose names hold or match `pattern`, or all: what `vitrail models --json` prints.

    `timm:PATTERN` lists timm's. Raises ConfigError where none matches.
    """
    from vitrail.models import listing

    return listing.list_models(pattern)
