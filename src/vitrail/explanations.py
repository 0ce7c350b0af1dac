"""Explanation: where in one image the evidence for a class lies, as a map, over the image, and as files.

Shapes: H rows and W columns of the original image, upright and as large as its file has it
"""

from __future__ import annotations

import io
import json
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vitrail import figures
from vitrail.checkpoint import ModelCard, write_atomically
from vitrail.data.preprocess import Placement, placement
from vitrail.errors import ConfigError, some, suggest
from vitrail.interpretation.methods import (
    METHODS,
    check_method,
    check_place,
    default_method,
    evidence_maps,
    impossible,
    possible_methods,
)
from vitrail.interpretation.occlusion import num_windows
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target
from vitrail.predictions import Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SIDE = 4096  # pixels of a picture's longer side at the most: what is larger is shown smaller
LEAST_SIDE = 224  # of the longer side that smaller images are enlarged to, by whole factors, as far as it goes
SUFFIXES = (".png", ".npz", ".json")


@dataclass(frozen=True)
class Question:
    """What is asked of a model: the evidence for class `target`, or that it is this rather than `against`.

    Without a target it is the predicted class, without a method the model's default one. Layers and heads count from 0,
    negative ones from the end. An int for a class is the one whose name is that number: 3 is "3", not the fourth.
    Raises ConfigError for an unknown method, and for what names no class and counts no layer.
    """

    method: str | None = None
    target: str | None = None
    against: str | None = None
    layer: int | None = None
    head: int | None = None

    def __post_init__(self) -> None:
        if self.method is not None:
            check_method(self.method)
        for what in ("target", "against"):
            object.__setattr__(self, what, class_name(getattr(self, what), what))
        for what in ("layer", "head"):
            value = getattr(self, what)
            if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
                raise ConfigError(f"{what}={value!r} is not a whole number; layers and heads count from 0")

    def check_classes(self, card: ModelCard) -> None:
        """Raise ConfigError for classes that a model does not have. Needs no weights."""
        for name in (self.target, self.against):
            if name is not None:
                _check_class(name, card)
        if self.target is not None and self.target == self.against:
            raise ConfigError(f"target and against are both {self.target!r}; name two classes to contrast")

    def resolved(self, subject: Subject, card: ModelCard) -> Question:
        """The same with its method. No image is needed to tell what cannot be asked.

        Raises ConfigError for classes, layers and heads that are not there, or of no use to the method.
        """
        self.check_classes(card)
        method = self.method or default_for(subject, card)
        sentence = impossible(subject, method)
        if sentence is not None:
            raise ConfigError(sentence)
        if METHODS[method].specific and not card.classes:
            raise ConfigError(
                f"{method} explains the score of a class, and {card.model_name} has none; "
                f"use {_either(_unspecific(subject))}"
            )
        if not METHODS[method].specific and (self.target is not None or self.against is not None):
            specific = [name for name in possible_methods(subject) if METHODS[name].specific]
            raise ConfigError(
                f"{method} shows what is looked at, whatever the class; leave target and against out, "
                f"or use {_either(specific)}"
            )
        if self.layer is not None or self.head is not None:
            check_place(subject, method, self.layer, self.head)
        return replace(self, method=method)

    def target_of(self, logits: np.ndarray, card: ModelCard) -> Target:
        """What to explain of an image with these logits (K,). Raises ConfigError if it is set against itself."""
        if not card.classes:
            return Target(0)  # which the method does not look at
        index = int(logits.argmax()) if self.target is None else card.classes.index(self.target)
        if self.against is None:
            return Target(index)
        if card.classes[index] == self.against:
            raise ConfigError(f"{self.against!r} is what is predicted, and cannot be set against itself; name a target")
        return Target(index, card.classes.index(self.against))

    def maps(self, subject: Subject, images: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
        """`evidence_maps` of images uint8 (N, H, W, C) of the model's size, by the method that is asked for."""
        assert self.method is not None
        return evidence_maps(subject, images, targets, self.method, self.layer, self.head)


def default_for(subject: Subject, card: ModelCard) -> str:
    """The method where none is asked for; of a model without classes one that needs none."""
    if card.classes:
        return default_method(subject)
    unspecific = _unspecific(subject)
    if not unspecific:
        raise ConfigError(
            f"{card.model_name} has neither classes to explain nor attention to show; train a classifier that begins "
            "with it: vitrail train DATA --init"
        )
    return "rollout" if "rollout" in unspecific else unspecific[0]


def _unspecific(subject: Subject) -> list[str]:
    return [name for name in possible_methods(subject) if not METHODS[name].specific]


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def class_name(value: Any, what: str = "target") -> str | None:
    """The name of a class that is given as one, or as a whole number. Raises ConfigError for anything else."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{what}={value!r} is no class; give the name of one")
    return str(int(value))


def _check_class(name: str, card: ModelCard) -> None:
    if name not in card.classes:
        known = f"it has {some(card.classes)}" if card.classes else "it has no classes"
        if name.removeprefix("-").isdigit():
            known += ", and classes go by their names, not by numbers"
        raise ConfigError(f"{card.model_name} has no class {name!r}; {known}.{suggest(name, card.classes)}")


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where in an image the evidence lies for class `target`, or that it is this rather than `against`.

    `map` is float32 (rows, columns), larger where there is more evidence; a cell may be a patch or a pixel of what the
    model was given, which lies at `placement` in the original. A `signed` map is below 0 where something speaks against
    the target. `target` is None where the method shows what the model looks at, whatever the class, and `prediction`
    for a model without classes. `original` are the upright image's pixels, uint8, at most 4,096 on a side, and `shape`
    its own rows and columns.
    """

    image: str
    model: str
    prediction: Prediction | None
    target: str | None
    against: str | None
    method: str
    layer: int | None
    head: int | None
    map: np.ndarray
    original: np.ndarray
    shape: tuple[int, int]
    placement: Placement

    @property
    def signed(self) -> bool:
        """Whether values below 0 speak against the target."""
        return METHODS[self.method].signed

    @property
    def question(self) -> str:
        """What the map answers: `evidence for shirt rather than t-shirt`."""
        if self.target is None:
            return "what is looked at, whatever the class"
        return f"evidence for {self.target}" + ("" if self.against is None else f" rather than {self.against}")

    @property
    def way(self) -> str:
        """How it was found: `attention of layer 3, head 0`."""
        if not METHODS[self.method].layered:
            return self.method
        layer = "the last layer" if self.layer is None else f"layer {self.layer}"
        return f"{self.method} of {layer}, {'mean of its heads' if self.head is None else f'head {self.head}'}"

    @property
    def cells(self) -> str:
        """What the map has a value of: `14x14 patches`; of occlusion the windows, each of which covers some pixels."""
        counts = (self.map.shape[0], self.map.shape[1])
        rows, columns = num_windows(counts) if self.method == "occlusion" else counts
        return f"{rows}x{columns} {METHODS[self.method].cells}"

    @property
    def enlarged(self) -> int:
        """How many times a picture is larger than the image, so that small ones can be looked at; 1 for others."""
        return max(1, LEAST_SIDE // max(self.original.shape[:2]))

    @property
    def padding(self) -> dict[str, float]:
        """What lies beyond the image's edges, where it was padded: of the map's `area`, and of its `evidence`."""
        left, top, right, bottom = self.placement
        rows, columns = self.map.shape
        inside = np.outer(_inside(rows, top, bottom), _inside(columns, left, right))
        outside = np.where(inside < 1 - 1e-9, 1 - inside, 0.0)  # no -0.0
        strength = np.abs(self.map)
        evidence = float((strength * outside).sum() / strength.sum()) if strength.any() else 0.0
        return {"area": round(float(outside.mean()), 6), "evidence": round(evidence, 6)}

    def heat(self, shape: tuple[int, int] | None = None) -> np.ndarray:
        """The map over the whole image, float32 (H, W), or (rows, columns) as `shape` says, between cells' middles.

        NaN where the model did not look, as that was cropped away.
        """
        left, top, right, bottom = self.placement
        rows, columns = shape or self.shape
        down, seen_rows = _weights(self.map.shape[0], rows, top, bottom)
        across, seen_columns = _weights(self.map.shape[1], columns, left, right)
        heat = down @ self.map.astype(np.float32) @ across.T
        heat[~seen_rows] = np.nan
        heat[:, ~seen_columns] = np.nan
        return heat

    def overlay(self) -> np.ndarray:
        """The map over the image, uint8 (rows, columns, 3) of the image's own size.

        Up to 4,096 pixels on a side; images of less than 112 are enlarged by a whole factor, each pixel to a square.
        """
        picture = self._picture()
        return figures.paint_overlay(picture, self.heat((picture.shape[0], picture.shape[1])), signed=self.signed)

    def figure(self) -> Figure:
        """The image, the map and the one over the other, side by side under what was predicted and asked."""
        picture = self._picture()
        heat = self.heat((picture.shape[0], picture.shape[1]))
        return figures.draw_overlay(
            picture,
            self.map,
            heat,
            self.placement,
            signed=self.signed,
            title=self.model if self.prediction is None else _told(self.prediction),
            map_title=f"map, {self.cells}",
            subtitle=f"{self.way}: {self.question}",
        )

    def save(self, path: str | Path) -> Path:
        """Write the overlay (.png), the map (.npz) or what is known of both (.json), as the name ends; gives the path.

        The .npz file holds `map`, float32, and `heat`, float16: the map over the image at its own size, up to 4,096 on
        a side, in parts of the map's largest value, NaN where the model did not look; with texts and numbers beside.
        Raises ConfigError for another ending or a folder that is not there, CheckpointError if the disk refuses.
        """
        path = Path(path)
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"{path.name!r} does not end in .png (the overlay), .npz (the map) or .json")
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent} is no folder that {path.name} could go to; make it first")
        content = io.BytesIO()
        if path.suffix.lower() == ".png":
            Image.fromarray(self.overlay()).save(content, "PNG", compress_level=4)
        elif path.suffix.lower() == ".npz":
            np.savez_compressed(content, allow_pickle=False, **self._arrays())
        else:
            content.write((json.dumps(self.to_json(), indent=2) + "\n").encode())
        write_atomically(path, content.getvalue())
        return path

    def to_json(self) -> dict[str, Any]:
        """All but the pixels and the map."""
        predicted = {} if self.prediction is None else self.prediction.to_dict()
        rows, columns = self.original.shape[:2]
        return {
            "image": self.image,
            "model": self.model,
            "prediction": {key: value for key, value in predicted.items() if key not in ("image", "error")} or None,
            "target": self.target,
            "against": self.against,
            "question": self.question,
            "method": self.method,
            "layer": self.layer,
            "head": self.head,
            "reading": METHODS[self.method].reading_of(self.against),
            "signed": self.signed,
            "image_size": list(self.shape),
            "map_size": list(self.map.shape),
            "map_range": [float(self.map.min()), float(self.map.max())],
            "placement": self.placement._asdict(),
            "padding": self.padding,
            "picture_size": [rows * self.enlarged, columns * self.enlarged],
            "enlarged": self.enlarged,
        }

    def __repr__(self) -> str:
        rows, columns = self.map.shape
        return f"Explanation({self.image}, {self.method}, {self.question}, map {rows}x{columns})"

    def _picture(self) -> np.ndarray:
        """The pixels to paint on."""
        return self.original.repeat(self.enlarged, axis=0).repeat(self.enlarged, axis=1)

    def _arrays(self) -> dict[str, Any]:
        largest = float(np.abs(self.map).max()) or 1.0
        texts = {"image": self.image, "model": self.model, "method": self.method, "target": self.target or ""}
        return {
            "map": self.map.astype(np.float32),
            "heat": (self.heat((self.original.shape[0], self.original.shape[1])) / largest).astype(np.float16),
            "heat_unit": np.float64(largest),
            "placement": np.array(self.placement, np.float64),
            **{key: np.array(_storable(value)) for key, value in (texts | {"against": self.against or ""}).items()},
        }

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.figure().savefig(content, format="png", dpi=110)
        return content.getvalue()


def explained(
    image: str,
    upright: Image.Image,
    card: ModelCard,
    question: Question,
    target: Target,
    prediction: Prediction | None,
    cells: np.ndarray,
) -> Explanation:
    """What was found of an image at its own size, by what was asked; `cells` is the map."""
    shape = (upright.height, upright.width)
    if max(shape) > MAX_SIDE:
        upright.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    assert question.method is not None
    specific = METHODS[question.method].specific
    return Explanation(
        image=image,
        model=card.model_name,
        prediction=prediction,
        target=card.classes[target.index] if specific else None,
        against=question.against,
        method=question.method,
        layer=question.layer,
        head=question.head,
        map=cells,
        original=np.atleast_3d(np.asarray(upright)),
        shape=shape,
        placement=placement(shape, card.preprocess),
    )


def _told(predicted: Prediction) -> str:
    """The prediction as a title: the class, or where there may be several labels those above a half."""
    from vitrail.figures.style import percent  # with matplotlib, as the figure itself

    best = f"{predicted.label} ({percent(predicted.probability or 0.0, 1)})"
    if predicted.probabilities is None:
        return f"predicted: {best}"
    given = [f"{label} ({percent(predicted.probabilities[label], 1)})" for label in predicted.labels or ()]
    return f"predicted: {', '.join(given)}" if given else f"predicted: no label; the most probable: {best}"


def _inside(cells: int, first: float, last: float) -> np.ndarray:
    """The part of each of so many cells, from `first` to `last`, that lies between 0 and 1."""
    edges = np.clip(np.linspace(first, last, cells + 1), 0, 1)
    return np.diff(edges) / ((last - first) / cells)


def _weights(cells: int, pixels: int, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
    """How much each cell weighs in each pixel (pixels, cells), by linear interpolation; and which pixels are seen.

    The cells lie from `first` to `last`, the pixels from 0 to 1. Cells that are smaller than pixels are averaged.
    """
    place = ((np.arange(pixels) + 0.5) / pixels - first) / (last - first) * cells - 0.5
    seen = (place >= -0.5) & (place <= cells - 0.5)
    if not seen.any():  # less than a pixel was looked at
        seen[np.abs(place - (cells - 1) / 2).argmin()] = True
    reach = max(1.0, cells / ((last - first) * pixels))
    weights = np.clip(1 - np.abs(np.clip(place, 0, cells - 1)[:, None] - np.arange(cells)) / reach, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), seen


def _storable(text: str) -> str:
    """Text that NumPy stores as it is: no lone halves of characters, as a file's name may have."""
    return text.encode("utf-8", "backslashreplace").decode()
