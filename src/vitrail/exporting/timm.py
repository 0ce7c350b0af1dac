"""A folder that `timm.create_model("local-dir:DIR", pretrained=True)` loads, and the hub as `hf-hub:owner/name`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from vitrail.data.preprocess import Preprocess
from vitrail.exporting.content import Content, as_json
from vitrail.models.layouts.timm import to_timm, why_not
from vitrail.models.vit_config import ViTConfig

__all__ = ["LIBRARY", "USE", "make", "why_not"]

LIBRARY = "timm"
USE = 'timm.create_model("local-dir:{folder}", pretrained=True)'


def make(config: ViTConfig, weights: Mapping[str, Tensor], classes: Sequence[str], preprocess: Preprocess) -> Content:
    """What timm's folder holds. Raises ConfigError for a model that timm cannot express."""
    fit = preprocess.fit
    described, tensors = to_timm(config, weights, classes, fit=fit, crop_rate=preprocess.crop_rate)
    notes = ["timm pads images with their mean colour, Vitrail with black"] if fit == "pad" else []
    return Content({"config.json": as_json(described)}, tensors, described, notes)
