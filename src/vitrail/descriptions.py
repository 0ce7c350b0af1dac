"""What other libraries' descriptions of a model say besides its network: classes, preprocessing, licence."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vitrail.data.preprocess import Fit

_FITS: dict[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}  # timm's crop_mode -> ours


class Fitting(NamedTuple):
    """How images of any shape come to a model's size: the fields of `Preprocess` of these names."""

    fit: Fit
    crop_rate: float = 1.0


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes, numbered where one occurs twice, as ImageNet's two kinds of crane do."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)


def numbered(count: int) -> tuple[str, ...]:
    """Names for so many classes that have none: class_0, class_1, ..."""
    return tuple(f"class_{index}" for index in range(count))


def timm_classes(described: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of `count` classes: those that a config.json of timm gives, else ImageNet's where it has as many."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    published: dict[str, Any] = described.get("pretrained_cfg") or {}
    labels: Any = described.get("label_names") or published.get("label_names")
    if isinstance(labels, dict):
        labels = [labels.get(str(index), f"class_{index}") for index in range(count)]
    if labels and len(labels) == count:
        return distinct([str(label) for label in labels])
    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return numbered(count)
    information = ImageNetInfo(subset)
    return distinct([information.index_to_description(index) for index in range(count)])


def transformers_classes(described: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of `count` classes: those that a config.json of transformers gives, if it gives them all."""
    named: dict[str, Any] = described.get("id2label") or {}
    default = numbered(count)
    if len(named) != count:
        return default
    return distinct([str(named.get(str(index), default[index])) for index in range(count)])


def timm_preprocessing(name: str, described: Mapping[str, Any]) -> tuple[Fitting, tuple[str, ...]]:
    """How images of a timm model fit, and a sentence where that is not the same with us."""
    published: dict[str, Any] = described.get("pretrained_cfg") or {}
    fit = _FITS.get(str(published.get("crop_mode", "center")), "crop")
    kept = min(1.0, float(published.get("crop_pct", 0.875 if published else 1.0)))  # timm's own default
    return Fitting(fit, kept), differing(name, fit, str(published.get("interpolation", "bicubic")))


def transformers_preprocessing(
    name: str, processor: Mapping[str, Any]
) -> tuple[Fitting, tuple[int, int] | None, tuple[str, ...]]:
    """How images fit by a preprocessor_config.json, their rows and columns, and a sentence where ours is not the same.

    The size is None where the file, {} if there is none, does not tell it.
    """
    notes = differing(name, "crop", {2: "bilinear", 3: "bicubic"}.get(processor.get("resample", 3), "other"))
    size: Any = processor.get("size")
    resized, cropped = _sides(size), _sides(processor.get("crop_size"))
    keeps_ratio = "shortest_edge" in size if isinstance(size, Mapping) else processor.get("do_center_crop")
    fit: Fit = "crop" if keeps_ratio else "squash"
    if processor.get("do_center_crop") and cropped is not None:
        return Fitting(fit, 1.0 if resized is None else crop_rate_of(cropped[0], resized[0])), cropped, notes
    return Fitting(fit), resized, notes


def crop_rate_of(cropped: int, resized: int) -> float:
    """The crop_rate by which images are resized to so many pixels, of which so many are kept; 1 if that is all."""
    if cropped >= resized:
        return 1.0
    rate = cropped / resized
    return rate if math.floor(cropped / rate) == resized else math.nextafter(rate, 0)


def _sides(size: Any) -> tuple[int, int] | None:
    """Rows and columns of a size as transformers writes it: a number, or by names."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or (size.get("height"), size.get("width"))
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return (size[0], size[1])
    return None


def stated_license(described: Mapping[str, Any], readme: str) -> str | None:
    """The licence that a repository states, in its config.json or at the top of its README.md."""
    published: dict[str, Any] = described.get("pretrained_cfg") or {}
    if published.get("license"):
        return str(published["license"])
    head = re.match(r"---[ \t]*\n(.*?)\n---", readme, re.DOTALL)
    found = None if head is None else re.search(r"^license:[ \t]*([\w.+-]+)[ \t]*$", head.group(1), re.MULTILINE)
    return None if found is None else found.group(1)


def differing(name: str, fit: Fit, interpolation: str) -> tuple[str, ...]:
    """One sentence where images are prepared otherwise than for the published measurements; logits differ a little."""
    there = [f"resized by {interpolation} interpolation"] if interpolation != "bicubic" else []
    here = ["resized bicubically"] if there else []
    if fit == "pad":
        there, here = [*there, "padded with their mean colour"], [*here, "padded with black"]
    if not there:
        return ()
    return (f"{name} was measured on images {' and '.join(there)}; here they are {' and '.join(here)}",)
