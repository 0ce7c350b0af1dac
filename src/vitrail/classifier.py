"""Classifier: a trained model as its users meet it, images in and predictions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from vitrail.checkpoint import ModelCard
from vitrail.data.content import content_hash
from vitrail.data.images import read_image
from vitrail.data.pixels import Pixels, pixel_blocks
from vitrail.data.preprocess import prepare, read_for, read_prepared
from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import sigmoid, softmax
from vitrail.predictions import NUM_TOP, Prediction

if TYPE_CHECKING:  # loaded when an explanation is asked for
    from vitrail.explanations import Explanation, Question
    from vitrail.interpretation.subjects import Subject
    from vitrail.interpretation.targets import Target

CHUNK = 256  # images read before a forward pass: few enough for memory, enough to keep the engine busy
EXPLAINED = 64  # images of the model's size that are explained before the first of them is handed over
COUNTED = 4096  # images between two reports; a multiple of the batches an engine makes of small images

Count = Callable[[int, int], None]  # hears how many of how many images are done
ImageLike = str | Path | bytes | Image.Image | np.ndarray


class Engine(Protocol):
    """Whatever runs a model."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, K) float32 of images uint8 (N, H, W, C) that have the model's size."""
        ...


@runtime_checkable
class FeatureEngine(Engine, Protocol):
    """An engine that also gives what the model's head sees."""

    def logits_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`logits`, and a vector (N, D) float32 for each image."""
        ...


@runtime_checkable
class NativeEngine(Engine, Protocol):
    """An engine that also takes images of different sizes at once."""

    def native_logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Logits (N, K) float32 of images uint8 (H, W, C), each of its own size; each has those it has alone."""
        ...


class Examined(NamedTuple):
    """A prediction with what else can be told of an image: its content hash, and the vector (D,) a model makes of it.

    Both are None where the image could not be read.
    """

    prediction: Prediction
    content: str | None
    features: np.ndarray | None


class Embedded(NamedTuple):
    """The vector (D,) float32 that a model makes of an image, and the image's content hash; or what kept it unread."""

    image: str
    content: str | None
    vector: np.ndarray | None
    error: str | None = None


class Explained(NamedTuple):
    """The explanation of an image, or what kept it from being explained: it could not be read, or nothing was asked."""

    image: str
    explanation: Explanation | None
    error: str | None = None

    def __repr__(self) -> str:
        said = f"error: {self.error}" if self.explanation is None else repr(self.explanation)
        return f"Explained({self.image}, {said})"


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
        prepared = read_prepared(image, self.card.preprocess)
        return self._prediction(_name(image), self.probabilities(prepared[None])[0])

    def predict_many(self, images: Iterable[ImageLike]) -> Iterator[Prediction]:
        """A prediction for each image, in order; one that cannot be read gives a prediction with its `error` set.

        A few hundred images are in memory at a time, however many there are.
        """
        for chunk in _chunks(images, CHUNK):
            readable, errors = self._read(chunk)
            prepared = [pixels for pixels, _ in readable.values()]
            rows = self.probabilities(np.stack(prepared)) if prepared else ()
            answers = dict(zip(readable, rows, strict=True))
            for index, image in enumerate(chunk):
                yield errors[index] if index in errors else self._prediction(_name(image), answers[index])

    def examine_many(self, images: Iterable[ImageLike]) -> Iterator[Examined]:
        """As `predict_many`, each prediction with the image's content hash and its features.

        The features are the vector that the model's head sees; of an engine that does not give it, the probabilities.
        """
        for chunk in _chunks(images, CHUNK):
            readable, errors = self._read(chunk, with_content=True)
            answers: dict[int, tuple[np.ndarray, np.ndarray]] = {}
            if readable:
                batch = np.stack([pixels for pixels, _ in readable.values()])
                answers = dict(zip(readable, zip(*self._probabilities_and_features(batch), strict=True), strict=True))
            for index, image in enumerate(chunk):
                if index in errors:
                    yield Examined(errors[index], None, None)
                else:
                    probabilities, features = answers[index]
                    yield Examined(self._prediction(_name(image), probabilities), readable[index][1], features)

    def embed(self, image: ImageLike) -> np.ndarray:
        """The vector (D,) float32 that the model's head reads of one image, given as for `predict`.

        Raises DataError for what cannot be read as an image.
        """
        prepared = read_prepared(image, self.card.preprocess)
        return self._probabilities_and_features(prepared[None])[1][0]

    def embed_many(self, images: Iterable[ImageLike]) -> Iterator[Embedded]:
        """The vector of each image, in order, a few hundred in memory at a time; what cannot be read has an `error`."""
        for chunk in _chunks(images, CHUNK):
            readable, errors = self._read(chunk, with_content=True)
            vectors: dict[int, np.ndarray] = {}
            if readable:
                batch = np.stack([pixels for pixels, _ in readable.values()])
                vectors = dict(zip(readable, self._probabilities_and_features(batch)[1], strict=True))
            for index, image in enumerate(chunk):
                if index in errors:
                    yield Embedded(_name(image), None, None, errors[index].error)
                else:
                    yield Embedded(_name(image), readable[index][1], vectors[index])

    def explain(
        self,
        image: ImageLike,
        method: str | None = None,
        target: str | int | None = None,
        against: str | int | None = None,
        layer: int | None = None,
        head: int | None = None,
    ) -> Explanation:
        """Where in one image, given as for `predict`, lies what speaks for the predicted class, or for `target`.

        With `against` it is what speaks for the one class rather than the other. `method` is attention, rollout,
        relevance, grad_cam, integrated_gradients or occlusion; without it, the model's default. `layer` and `head`,
        from 0 or from the end as -1, say where attention is read. Classes go by their names; 3 is the class "3".
        Raises DataError for what cannot be read as an image, ConfigError for what is not there, or not possible, and
        for several images.
        """
        from vitrail.explanations import Question, class_name

        given: Any = image
        if isinstance(given, Iterable) and not isinstance(given, str | bytes | bytearray | np.ndarray):
            raise ConfigError("explain takes one image; give several to explain_many")
        named = class_name(target), class_name(against, "against")
        question, subject = self._asked(Question(method, *named, layer, head))
        pixels = read_prepared(image, self.card.preprocess)[None]
        logits = self.engine.logits(pixels)
        targets = [question.target_of(logits[0], self.card)]
        return self._explanation(image, question, targets[0], logits[0], question.maps(subject, pixels, targets)[0])

    def explain_many(self, images: Iterable[ImageLike], question: Question) -> Iterator[Explained]:
        """As `explain`, what is asked of each image, in order; one that cannot be explained has an `error`.

        Each is `image`, the name, with `explanation`, or None and `error`. Some dozens of images are in memory at a
        time, but only one of them at its own size.
        """
        if isinstance(images, str | bytes | Path | Image.Image):
            raise ConfigError("explain_many takes several images; give one to explain, or [image]")
        question, subject = self._asked(question)
        for chunk in _chunks(images, EXPLAINED):
            readable, errors = self._read(chunk)
            failed = {index: str(prediction.error) for index, prediction in errors.items()}
            prepared = {index: pixels for index, (pixels, _) in readable.items()}
            rows = self.engine.logits(np.stack([*prepared.values()])) if prepared else ()
            logits = dict(zip(prepared, rows, strict=True))
            targets: dict[int, Target] = {}
            for index, row in logits.items():
                try:
                    targets[index] = question.target_of(row, self.card)
                except ConfigError as error:
                    failed[index] = f"{_name(chunk[index])}: {error}"
            asked = [prepared[index] for index in targets]
            maps = question.maps(subject, np.stack(asked), [*targets.values()]) if asked else ()
            cells = dict(zip(targets, maps, strict=True))
            for index, image in enumerate(chunk):
                explanation = None
                if index not in failed:
                    try:
                        explanation = self._explanation(image, question, targets[index], logits[index], cells[index])
                    except DataError as error:  # the file was there a moment ago
                        failed[index] = str(error)
                yield Explained(_name(image), explanation, failed.get(index))

    def _asked(self, question: Question) -> tuple[Question, Subject]:
        """What is asked, complete and possible; and the model as methods of explanation meet it."""
        from vitrail.interpretation.subjects import Subject

        subject = Subject.of(self.engine, self.card.model)
        return question.resolved(subject, self.card), subject

    def _explanation(
        self, image: ImageLike, question: Question, target: Target, logits: np.ndarray, cells: np.ndarray
    ) -> Explanation:
        from vitrail.explanations import explained

        prediction = self._prediction(_name(image), self.calibrated(logits[None])[0]) if self.classes else None
        return explained(_name(image), read_image(image, at_least=None), self.card, question, target, prediction, cells)

    def logits(self, images: Pixels, report: Count | None = None) -> np.ndarray:
        """Logits (N, K) float32 of images uint8 (N, H, W, C) that have the model's size; `report` hears how many."""
        return _in_parts(self.engine.logits, images, report)

    def native_logits(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Logits (N, K) float32 of images as large as they are, none resized, given as for `predict`.

        Those of like size share a batch, padded; each image has the logits that it has alone. Raises DataError for what
        cannot be read, ConfigError for sizes that the model cannot take, or a model that takes one size in a batch.
        """
        if not isinstance(self.engine, NativeEngine):
            raise ConfigError("This model takes images of one size; resize them, or load it with image_size")
        pixels: list[np.ndarray] = []
        for image in images:
            upright = read_image(image, at_least=None)
            own_size = {"image_size": (upright.height, upright.width), "crop_rate": 1.0}
            pixels.append(prepare(upright, self.card.preprocess.model_copy(update=own_size)))
        return self.engine.native_logits(pixels)

    def features(self, images: Pixels, report: Count | None = None) -> np.ndarray:
        """The vectors (N, D) float32 that the model's head reads, of images as for `logits`."""
        return _in_parts(lambda part: self._probabilities_and_features(part)[1], images, report)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (N, K) float64 of images uint8 (N, H, W, C) that have the model's size."""
        return self.calibrated(self.engine.logits(images))

    def _probabilities_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(self.engine, FeatureEngine):
            probabilities = self.probabilities(images)
            return probabilities, probabilities
        logits, features = self.engine.logits_and_features(images)
        return self.calibrated(logits), features

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (N, K) float64 of logits (N, K); they sum to 1, but where an image may have several labels."""
        return (sigmoid if self.card.multilabel else softmax)(logits / self.card.temperature)

    def _read(
        self, images: Sequence[ImageLike], with_content: bool = False
    ) -> tuple[dict[int, tuple[np.ndarray, str | None]], dict[int, Prediction]]:
        """By place: the images at the model's size, with their content hashes if wanted; and what cannot be read."""
        readable: dict[int, tuple[np.ndarray, str | None]] = {}
        errors: dict[int, Prediction] = {}
        for index, image in enumerate(images):
            try:
                if with_content:
                    pixels, original = read_for(image, self.card.preprocess)
                    readable[index] = pixels, content_hash(np.asarray(original))
                else:
                    readable[index] = read_prepared(image, self.card.preprocess), None
            except DataError as error:
                errors[index] = Prediction(_name(image), None, None, error=str(error))
        return readable, errors

    def _prediction(self, name: str, probabilities: np.ndarray) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[:NUM_TOP]
        top = tuple((self.classes[index], float(probabilities[index])) for index in best)
        if self.card.multilabel:
            return Prediction(
                name, *top[0], top, probabilities=dict(zip(self.classes, probabilities.tolist(), strict=True))
            )
        threshold = self.card.reject_threshold
        return Prediction(name, *top[0], top, sure=threshold is None or top[0][1] > threshold)

    def __repr__(self) -> str:
        return f"Classifier({self.card.model_name}, {len(self.classes)} classes)"


def _in_parts(compute: Callable[[np.ndarray], np.ndarray], images: Pixels, report: Count | None) -> np.ndarray:
    """What `compute` makes of the images, a part at a time, each of which `report` hears of."""
    parts: list[np.ndarray] = []
    done = 0
    for block in pixel_blocks(images):
        for start in range(0, len(block), COUNTED):
            parts.append(compute(block[start : start + COUNTED]))
            done += len(parts[-1])
            if report is not None:
                report(done, len(images))
    return np.concatenate(parts)


def _chunks(images: Iterable[ImageLike], size: int) -> Iterator[list[ImageLike]]:
    waiting = iter(images)
    while chunk := list(islice(waiting, size)):
        yield chunk


def _name(image: ImageLike) -> str:
    """What a prediction calls its image: the path, or what kind of thing it was."""
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "")) or "image"
    return "bytes" if isinstance(image, bytes) else "array"
