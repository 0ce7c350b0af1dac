"""A model written as a folder for another library, and proven: what was written answers as the model does."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vitrail.checkpoint import ModelCard, read_tensors, write_atomically
from vitrail.classifier import Classifier
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import CheckpointError, ConfigError, ExportError, suggest
from vitrail.exporting import FORMATS
from vitrail.models import build_model
from vitrail.models.adaptation import adapt_weights
from vitrail.models.vit_config import ViTConfig
from vitrail.models.weights import import_weights, load_weights

NUM_PROVEN = 8  # random images on which both models must agree
TOLERANCE = 1e-4  # of a logit, beside the same part of the largest


class Exported(NamedTuple):
    """A folder that was written, and how it was proven."""

    path: Path
    format: str
    files: tuple[str, ...]
    images: int
    """random images on which the model, read again from the folder, answered as before"""
    largest_difference: float
    """between its logits and those before, over all of these"""
    use: str
    """the call that loads it"""
    notes: tuple[str, ...]
    """a sentence for each thing that is not as in Vitrail"""

    def to_dict(self) -> dict[str, Any]:
        """What `vitrail export --json` prints."""
        return {**self._asdict(), "path": str(self.path), "files": list(self.files), "notes": list(self.notes)}


def export_folder(model: nn.Module, card: ModelCard, format_name: str, folder: Path) -> Exported:
    """Write a model into `folder`, new or empty, for another library; read it again and compare their logits.

    Raises ConfigError for an unknown format, a folder that is in use, or a model that the format cannot express, and
    ExportError if what was written answers otherwise.
    """
    module = _module(format_name)
    config = card.model
    if not isinstance(config, ViTConfig):
        raise ConfigError(f"A model of kind {config.kind!r} cannot be exported to {module.LIBRARY}; only 'vit' can")
    reason = module.why_not(config)
    if reason is not None:
        others = [name for name in FORMATS if _module(name).why_not(config) is None]
        hint = f"; use --format {others[0]}" if others else ", and no other format has; its run folder is a format too"
        raise ConfigError(f"{module.LIBRARY} has no Vision Transformer with {reason}{hint}")
    _make_folder(folder)
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    notes: list[str] = []
    if card.preprocess.image_size != config.image_size:  # others resize positions otherwise, or not at all
        sized = config.model_copy(update={"image_size": card.preprocess.image_size})
        weights, notes = adapt_weights(weights, config, sized, keep_head=True)
        config = sized
    content = module.make(config, weights, card.classes, card.preprocess)
    for name, text in content.texts.items():
        write_atomically(folder / name, text)
    write_atomically(folder / "model.safetensors", _to_bytes(content.tensors))
    notes = [*notes, *content.notes]
    if card.temperature != 1:
        notes.append(f"Its probabilities are not calibrated: divide logits by the temperature {card.temperature:.4g}")
    if card.multilabel:
        notes.append("Its labels do not exclude one another: take the sigmoid of each logit, not a softmax")
    difference = _prove(model, folder, [*content.texts])
    files = (*content.texts, "model.safetensors")
    use = module.USE.format(folder=folder.as_posix())
    return Exported(folder, format_name, files, NUM_PROVEN, difference, use, tuple(notes))


def export_classifier(classifier: Classifier, name: str, format_name: str, folder: Path | None) -> Exported:
    """As `export_folder`, of a loaded model called `name`; without a folder, to exports/<name>-<format>."""
    assert isinstance(classifier.engine, TorchEngine)
    if folder is None:
        base = re.sub(r"[^\w.-]+", "-", Path(name).name)  # a published model's name may hold colons
        folder = Path("exports", f"{base}-{format_name}")
    return export_folder(classifier.engine.model, classifier.card, format_name, folder)


def _module(format_name: str) -> ModuleType:
    if format_name not in FORMATS:
        raise ConfigError(
            f"No format named {format_name!r}.{suggest(format_name, FORMATS)} Use one of {', '.join(FORMATS)}"
        )
    return import_module(FORMATS[format_name])


def _make_folder(folder: Path) -> None:
    """Make `folder`, unless it is there and empty. Raises ConfigError if it is in use or cannot be made."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not empty; give --output a new folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} could not be made: {error.strerror or error}") from error


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """A safetensors file; transformers takes it only with that word of what it was written by."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})


def _prove(model: nn.Module, folder: Path, texts: list[str]) -> float:
    """The largest difference between logits of a model and of what its folder holds, on random images.

    Raises ExportError if it is larger than rounding can make it.
    """
    described: dict[str, Any] = {}
    for name in texts:
        described |= json.loads((folder / name).read_text(encoding="utf-8"))
    try:
        imported = import_weights(read_tensors(folder / "model.safetensors"), described)
        with torch.random.fork_rng(devices=[]):  # weights drawn here are thrown away; the caller's draws stay
            again = build_model(imported.config)
        load_weights(again, imported.weights)
    except CheckpointError as error:
        raise ExportError(f"What was written to {folder} cannot be read again: {error}") from error
    config = imported.config
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_PROVEN, config.in_chans, *config.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    device = next(model.parameters()).device
    with torch.inference_mode():
        expected = model.eval()(images.to(device)).float().cpu()
        difference = float((again.eval()(images) - expected).abs().max())
    if not difference <= TOLERANCE * (1 + float(expected.abs().max())):
        raise ExportError(
            f"What was written to {folder} answers differently, by {difference:.3g} in a logit; do not use it"
        )
    return difference
