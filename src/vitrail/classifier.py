"""Classifier: a trained model as its users meet it, images in and predictions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from vitrail.checkpoint import ModelCard
from vitrail.data.images import read_image
from vitrail.data.preprocess import prepare
from vitrail.errors import DataError
from vitrail.evaluation import softmax
from vitrail.predictions import NUM_TOP, Prediction

CHUNK = 256  # images read before a forward pass: few enough for memory, enough to keep the engine busy

ImageLike = str | Path | bytes | Image.Image | np.ndarray


class Engine(Protocol):
    """Whatever runs a model."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, K) float32 of images uint8 (N, H, W, C) that have the model's size."""
        ...


class Classifier:
    """A model with its classes and preprocessing, over any engine."""

    def __init__(self, engine: Engine, card: ModelCard) -> None:
        self.engine = engine
        self.card = card

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.card.classes

    def predict(self, image: ImageLike) -> Prediction:
        """The prediction for one image: a file, encoded bytes, a PIL image, or uint8 (H, W), (H, W, 1, 3 or 4).

        Raises DataError for what cannot be read as an image.
        """
        return self._predictions([_name(image)], [self._prepared(image)])[0]

    def predict_many(self, images: Iterable[ImageLike]) -> Iterator[Prediction]:
        """A prediction for each image, in order; one that cannot be read gives a prediction with its `error` set."""
        chunk: list[ImageLike] = []
        for image in images:
            chunk.append(image)
            if len(chunk) == CHUNK:
                yield from self._predict_chunk(chunk)
                chunk = []
        yield from self._predict_chunk(chunk)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (N, K) float64 of images uint8 (N, H, W, C) that have the model's size."""
        return softmax(self.engine.logits(images) / self.card.temperature)

    def _predict_chunk(self, images: Sequence[ImageLike]) -> list[Prediction]:
        results: list[Prediction | None] = []
        prepared: list[np.ndarray] = []
        for image in images:
            try:
                prepared.append(self._prepared(image))
                results.append(None)
            except DataError as error:
                results.append(Prediction(_name(image), None, None, error=str(error)))
        readable = [_name(image) for image, result in zip(images, results, strict=True) if result is None]
        answers = iter(self._predictions(readable, prepared))
        return [next(answers) if result is None else result for result in results]

    def _prepared(self, image: ImageLike) -> np.ndarray:
        return prepare(read_image(image), self.card.preprocess)

    def _predictions(self, names: Sequence[str], prepared: Sequence[np.ndarray]) -> list[Prediction]:
        if not prepared:
            return []
        answers: list[Prediction] = []
        for name, probabilities in zip(names, self.probabilities(np.stack(prepared)), strict=True):
            best = np.argsort(-probabilities, kind="stable")[:NUM_TOP]
            top = tuple((self.classes[index], float(probabilities[index])) for index in best)
            answers.append(Prediction(name, *top[0], top))
        return answers

    def __repr__(self) -> str:
        return f"Classifier({self.card.model_name}, {len(self.classes)} classes)"


def _name(image: ImageLike) -> str:
    """What a prediction calls its image: the path, or what kind of thing it was."""
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "image"
    return "bytes" if isinstance(image, bytes) else "array"
