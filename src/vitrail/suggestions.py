"""Suggestions: which images are most worth labelling, because the model wavers on them and they are not alike.

The first is the one with the smallest margin between its two most probable classes. Each next one has the highest
score: (1 - margin) times its distance to the nearest one chosen so far (Sener and Savarese 2018 choose by that distance
alone), so that of a hundred near-copies of one hard photograph one is listed early and the others late.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.predictions import Prediction, check_output, write_json_lines, write_rows

MOST_CANDIDATES = 20_000  # those with the smallest margins; more would cost time and memory and not change the list

_COLUMNS = ("image", "score", "margin", "label", "probability", "reason")


@dataclass(frozen=True)
class Suggestion:
    """One image worth labelling.

    `score` is in 0..1 and falls along a list. `margin` is the difference between the probabilities of the two most
    probable classes, `label` and `probability` are the model's present guess, `reason` says between what it wavers.
    Of a model that gives several labels, `margin` is between having and not having the label that it wavers on most,
    which is `label`.
    """

    image: str
    score: float
    margin: float
    label: str
    probability: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """The suggestion as JSON has it."""
        return asdict(self)


class Candidates:
    """The images to choose from, added one by one; each pixel content counts once.

    `known` are the content hashes of images that have a label already; None where they are not known. `num_known` and
    `num_copies` count the images left out, as known and as exact copies.
    """

    def __init__(self, known: Collection[str] | None = None) -> None:
        self.known = known or ()
        self.num_known = self.num_copies = 0
        self._seen: set[bytes] = set()
        self._predictions: list[Prediction] = []
        self._vectors: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._predictions)

    def add(self, prediction: Prediction, content: str, features: np.ndarray) -> None:
        """Take one readable image with its content hash and its features (D,), unless it is known or a copy."""
        digest = bytes.fromhex(content)
        if content in self.known:
            self.num_known += 1
        elif digest in self._seen:
            self.num_copies += 1
        else:
            self._seen.add(digest)
            self._predictions.append(prediction)
            length = float(np.linalg.norm(features)) or 1.0
            self._vectors.append((features / length).astype(np.float16))  # 100,000 of 192 numbers: 38 MB

    def choose(self, count: int) -> list[Suggestion]:
        """The `count` best ones, best first; all of them if there are no more."""
        if not self._predictions:
            return []
        margins = np.array([_margin(prediction) for prediction in self._predictions])
        nearest = np.argsort(margins, kind="stable")[: max(MOST_CANDIDATES, 2 * count)]
        vectors = np.stack([self._vectors[index] for index in nearest]).astype(np.float32)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)  # float16 has three digits
        order, scores = choose_diverse(1 - margins[nearest], vectors, count)
        chosen = (self._predictions[nearest[place]] for place in order)
        return [_suggestion(prediction, float(score)) for prediction, score in zip(chosen, scores, strict=True)]


def choose_diverse(uncertainties: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (n,) of the greedy choice, best first, and their scores, falling; n is `count`, or all there are.

    `uncertainties` are (N,) in 0..1, `vectors` (N, D) of length 1. The distance between two is half that of the
    vectors, so 0..1; that to the nearest chosen one is 1 as long as none is chosen. Takes time in N x D x count.
    """
    count = min(count, len(uncertainties))
    places, scores = np.empty(count, np.int64), np.empty(count)
    distances = np.ones(len(uncertainties))
    left = np.ones(len(uncertainties), bool)
    for turn in range(count):
        current = np.where(left, uncertainties * distances, -1.0)
        best = int(current.argmax())
        places[turn], scores[turn] = best, current[best]
        left[best] = False
        squared = np.maximum(0.0, 2 - 2 * (vectors @ vectors[best]).astype(np.float64))
        distances = np.minimum(distances, np.sqrt(squared) / 2)
    return places, scores


def write_suggestions(path: Path, suggestions: Sequence[Suggestion]) -> None:
    """Write one row a suggestion: image, score, margin, label, probability, reason; the suffix decides, as ever.

    Raises ConfigError for an unfit `path`, CheckpointError if the disk refuses.
    """
    check_output(path)
    rows = [suggestion.to_dict() for suggestion in suggestions]
    if path.suffix.lower() == ".jsonl":
        write_json_lines(path, rows)
    else:
        write_rows(path, _COLUMNS, rows)


def _margin(prediction: Prediction) -> float:
    if prediction.probabilities is not None:
        return abs(2 * _doubtful(prediction)[1] - 1)
    probabilities = [probability for _, probability in prediction.top]
    return probabilities[0] - probabilities[1] if len(probabilities) > 1 else 1.0


def _doubtful(prediction: Prediction) -> tuple[str, float]:
    """The label whose probability is nearest to a half, where an image may have several."""
    assert prediction.probabilities is not None
    return min(prediction.probabilities.items(), key=lambda pair: abs(pair[1] - 0.5))


def _suggestion(prediction: Prediction, score: float) -> Suggestion:
    if prediction.probabilities is not None:
        label, probability = _doubtful(prediction)
        reason = f"{label} {100 * probability:.1f} % or not"
        return Suggestion(prediction.image, score, _margin(prediction), label, probability, reason)
    assert prediction.label is not None
    assert prediction.probability is not None
    reason = " or ".join(f"{label} {100 * probability:.1f} %" for label, probability in prediction.top[:2])
    return Suggestion(prediction.image, score, _margin(prediction), prediction.label, prediction.probability, reason)
