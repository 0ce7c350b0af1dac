"""A folder that transformers' AutoModelForImageClassification and AutoImageProcessor load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from vitrail.data.preprocess import Preprocess
from vitrail.exporting.content import Content, as_json
from vitrail.models.layouts.huggingface import to_huggingface, why_not
from vitrail.models.vit_config import ViTConfig

__all__ = ["LIBRARY", "USE", "make", "why_not"]

LIBRARY = "Hugging Face's transformers"
USE = 'transformers.AutoModelForImageClassification.from_pretrained("{folder}")'


def make(config: ViTConfig, weights: Mapping[str, Tensor], classes: Sequence[str], preprocess: Preprocess) -> Content:
    """What transformers' folder holds. Raises ConfigError for a model that it cannot express."""
    fit, crop_rate = preprocess.fit, preprocess.crop_rate
    described, processor, tensors = to_huggingface(config, weights, classes, fit=fit, crop_rate=crop_rate)
    texts = {"config.json": as_json(described), "preprocessor_config.json": as_json(processor)}
    notes: list[str] = []
    if "crop_size" not in processor and (fit != "squash" or crop_rate < 1):
        done = {"pad": "pads", "crop": "crops"}.get(fit, "stretches and crops")
        notes.append(f"Its image processor stretches images to the model's size, Vitrail {done} them")
    return Content(texts, tensors, {**described, **processor}, notes)
