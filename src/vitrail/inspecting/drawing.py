"""Each figure of a model's inside: its arrays, how it is read, and what is unusual."""

# Shapes: N images, L layers

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from vitrail import figures
from vitrail.classifier import Classifier, Count
from vitrail.data.dataset import ImageSet
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError, DataError
from vitrail.evaluation.intervals import wilson_interval
from vitrail.evaluation.probes import Labelled
from vitrail.inspecting.images import InspectionImages
from vitrail.interpretation import remarks
from vitrail.interpretation.distances import AttentionSpread
from vitrail.interpretation.filters import first_filters
from vitrail.interpretation.gathering import Look, sample
from vitrail.interpretation.layer_probes import balanced_accuracy, probe_layers
from vitrail.interpretation.norms import find_outliers
from vitrail.interpretation.positions import position_similarity, position_structure
from vitrail.interpretation.projection import principal_components
from vitrail.interpretation.similarity import layer_similarity
from vitrail.models.vit import VisionTransformer

_PERCENTILES = (1, 25, 50, 75, 99)
_LEAST_KERNEL = 5  # pixels; smaller ones are too small to tell speckle from edges


@dataclass(frozen=True, eq=False)
class Subject:
    """What is inspected: the classifier, the look at its model, and the names of the images' classes."""

    classifier: Classifier
    engine: TorchEngine
    look: Look
    classes: tuple[str, ...]

    def labels(self, images: ImageSet) -> NDArray[np.int64]:
        """The class of each image. Raises DataError where an image may have several."""
        if images.labels.ndim > 1:
            raise DataError("Images may have several labels here; classes are told apart where each has one")
        return images.labels

    def predicted(self, logits: NDArray[np.float32]) -> NDArray[np.int64] | None:
        """The predicted place in the images' classes; None where the model has others, whose answers do not compare."""
        known = {name: place for place, name in enumerate(self.classes)}
        if {*known} != {*self.classifier.classes}:
            return None
        return np.array([known[name] for name in self.classifier.classes], np.int64)[logits.argmax(axis=1)]

    def attention(self) -> AttentionSpread:
        """How its heads attend. Raises ConfigError, by the model's name, for one that has no attention."""
        try:
            return self.look.attention
        except ConfigError as error:
            _, none, _ = str(error).partition(" has no attention")
            if not none:
                raise
            raise ConfigError(f"{self.classifier.card.model_name}{none}") from error


def subject_of(classifier: Classifier, images: InspectionImages, report: Count | None) -> Subject:
    """The subject that a classifier is, with images. Raises ConfigError where it does not run in torch."""
    engine, card = classifier.engine, classifier.card
    if not isinstance(engine, TorchEngine):
        raise ConfigError("This model answers and shows nothing of its inside; inspect the run that it was made of")
    size = card.preprocess.image_size
    look = Look(engine.model, engine.device, card.model, size, images.parts, images.no_images, report)
    return Subject(classifier, engine, look, images.classes)


@dataclass(frozen=True)
class Drawn:
    """A figure: what it is called, how it is read, what is unusual, and the numbers behind it."""

    title: str
    figure: Figure
    reading: str
    remarks: tuple[str, ...]
    numbers: Mapping[str, Any]


def _filters(subject: Subject) -> Drawn:
    found = first_filters(subject.engine.model)
    figure = figures.draw_filters(found.pictures, found.explained)
    numbers: dict[str, Any] = {"filters": found.num_filters, "weak": found.num_weak}
    if found.explained is None:
        reading = (
            "Each square is one of the strongest kernels that read the pixels, grey where a weight is zero: edges, "
            "blobs and colours are what a trained network has"
        )
        if min(found.pictures.shape[1:3]) >= _LEAST_KERNEL:
            reading += ", speckle is what it began with"
        return Drawn("First kernels", figure, reading, remarks.on_filters(found), numbers)
    numbers |= {"explained": found.explained, "random_share": found.random_share}
    reading = (
        f"Each square is a principal component of the {found.num_filters} filters that project patches, grey where a "
        "weight is zero, with its share of their variance: smooth waves and edges come from training, speckle is noise"
    )
    return Drawn("Patch filters", figure, reading, remarks.on_filters(found), numbers)


def _positions(subject: Subject) -> Drawn:
    look = subject.look
    grid: Callable[[int, int], tuple[int, int]] | None = getattr(getattr(look.model, "patch_embed", None), "grid", None)
    found = position_similarity(look.model, None if grid is None else grid(*look.image_size))
    structure = position_structure(found.similarity)
    kinds = {"learned": "learned position", "fixed": "fixed position", "rotary": "turn (rotary position)"}
    reading = (
        f"Each small map belongs to the patch at its place and shows how like its {kinds[found.kind]} that of every "
        "patch is: dark blue near the patch and along its row and column says that the model knows how patches lie"
    )
    numbers = {"kind": found.kind, "width": found.width, **structure._asdict()}
    figure = figures.draw_positions(found.similarity, found.step)
    return Drawn("Position similarity", figure, reading, remarks.on_positions(found, structure), numbers)


def _attention_distance(subject: Subject) -> Drawn:
    found = subject.attention()
    figure = figures.draw_attention_distance(found.distances, found.largest_distance, found.uniform_distance)
    reading = (
        "Each dot is a head, and its height how far from a patch the patches lie that it attends to: low blocks of "
        "trained models have heads that look nearby beside heads that look everywhere, high blocks look far"
    )
    if remarks.few_patches(found.grid):
        reading += f"; with {found.grid[0]}x{found.grid[1]} patches near and far are hardly different"
    numbers = {
        "pixels": found.distances,
        "largest": found.largest_distance,
        "uniform": found.uniform_distance,
        "images": found.num_images,
    }
    said = remarks.on_distances(found, subject.look.image_size)
    return Drawn("Attention distance", figure, reading, said, numbers)


def _attention_entropy(subject: Subject) -> Drawn:
    found = subject.attention()
    figure = figures.draw_attention_entropy(found.entropies, found.largest_entropy)
    reading = (
        "Each dot is a head: near 0 it attends to one token at a time, at the dashed line to all tokens alike, "
        "and useful heads lie between"
    )
    numbers = {"nats": found.entropies, "largest": found.largest_entropy, "images": found.num_images}
    return Drawn("Attention entropy", figure, reading, remarks.on_entropies(found), numbers)


def _layer_similarity(subject: Subject) -> Drawn:
    found = subject.look.tokens
    alike = layer_similarity(found.rows)
    figure = figures.draw_layer_similarity(alike, found.names)
    described = "tokens" if all(name.isdecimal() for name in found.names) else "places"
    reading = (
        f"Each cell says how alike two layers' descriptions of the same {described} are (linear CKA), 1 for the same "
        "but for rotation and scale: a dark square is a run of layers that change little"
    )
    numbers = {"layers": found.names, "cka": alike, "tokens": len(found.rows[0])}
    return Drawn("Layer similarity", figure, reading, remarks.on_similarity(alike, found.names), numbers)


def _token_norms(subject: Subject) -> Drawn:
    found = subject.look.tokens
    if not found.norms.size:
        raise ConfigError(
            f"{subject.classifier.card.model_name} has maps of several sizes in place of tokens, whose norms would not "
            "compare"
        )
    outliers = find_outliers(found.norms)
    percentiles = np.nanpercentile(found.norms, _PERCENTILES, axis=(1, 2)).T
    prefix = found.prefix_norms if found.prefix_norms.shape[1] else None
    limits = outliers.thresholds if outliers.layers else None
    figure = figures.draw_token_norms(percentiles, outliers.shares, limits, prefix)
    reading = (
        "The band is how long nearly all patch tokens are after each layer: tokens far above it are outliers, in which "
        "some large models keep notes of the whole image, and which spoil attention maps"
    )
    numbers = {
        "layers": found.names,
        "percentiles": percentiles,
        "outlier_shares": outliers.shares,
        "outlier_thresholds": outliers.thresholds,
        "largest_to_median": outliers.largest,
        "images": found.norms.shape[1],
    }
    said = remarks.on_norms(outliers, found.names, found.grid, _num_registers(subject.look.model))
    return Drawn("Token norms", figure, reading, said, numbers)


def _num_registers(model: nn.Module) -> int | None:
    """How many registers a model has; None if it has none and could have none by a setting of ours."""
    if isinstance(model, VisionTransformer):
        return model.config.reg_tokens
    return int(getattr(getattr(model, "net", None), "num_reg_tokens", 0)) or None


def _embeddings(subject: Subject) -> Drawn:
    look = subject.look
    split, every = look.part("test", "validation", "train")
    images = sample(every, look.num_images)
    of_split = _of(len(images), len(every), split)
    labels = subject.labels(images)
    logits, vectors = subject.engine.logits_and_features(images.pixels[:])
    found = principal_components(vectors, 2)
    predicted = subject.predicted(logits)
    explained, points = np.zeros(2), np.zeros((len(vectors), 2))  # of two images, one component is all there is
    explained[: len(found.explained)], points[:, : found.points.shape[1]] = found.explained, found.points
    point = f"one of {of_split}" if len(images) < len(every) else f"a {split} image"
    marked = (
        "crosses are mistakes" if predicted is not None else "the model has other classes, so no mistakes are marked"
    )
    reading = (
        f"Each point is {point}, on the two directions in which the vectors that the head reads differ most: "
        f"classes that lie apart are easy for the model, {marked}, and what overlaps here may still be apart elsewhere"
    )
    said = remarks.on_embeddings(explained, labels, predicted, subject.classes)
    if len(images) < len(every):
        said = _sampled(said, of_split)
    numbers: dict[str, Any] = {"split": split, "images": len(images), "explained": explained}
    if predicted is not None:
        numbers["mistakes"] = int((labels != predicted).sum())
    figure = figures.draw_embeddings(points, labels, predicted, subject.classes, explained, len(every))
    return Drawn("Map of embeddings", figure, reading, said, numbers)


def _of(number: int, total: int, split: str) -> str:
    """So many images of a split, and of how many where they are not all of them."""
    return f"{number:,} {split} images" if number == total else f"{number:,} of {total:,} {split} images"


def _sampled(said: tuple[str, ...], images: str) -> tuple[str, ...]:
    """Remarks with the images that their numbers are of, as all of the split gives others."""
    return tuple(f"{remark} (on {images})" for remark in said)


def _layer_probes(subject: Subject) -> Drawn:
    look = subject.look
    for name in ("train", "validation"):
        subject.labels(look.part(name)[1])
    total = len(look.part("validation")[1])
    (train, labels), (validation, own_labels) = look.vectors("train"), look.vectors("validation")
    found = probe_layers(
        [Labelled(vectors, labels) for vectors in train.vectors],
        [Labelled(vectors, own_labels) for vectors in validation.vectors],
    )
    predicted = subject.predicted(validation.logits)
    head, band = None, None
    if predicted is not None:
        right = predicted == own_labels
        hits = int(right.sum())
        head = remarks.Head(hits / len(right), balanced_accuracy(right, own_labels))
        band = (head.accuracy, *wilson_interval(hits, len(right)))
    figure = figures.draw_layer_probes(found.accuracies, found.intervals, train.names, band, (len(own_labels), total))
    of_split = _of(len(own_labels), total, "validation")
    reading = (
        f"Each point is how many of {of_split} a linear classifier gets right that was trained on one layer's "
        "vectors alone: where the line stops rising, later layers add nothing to telling the classes apart"
    )
    last = float(found.balanced[-1])
    if head is not None and found.accuracies[-1] > head.accuracy and last < head.balanced:
        reading += (
            f"; by balanced accuracy, which counts rare classes as much as common ones, the model's own head is better "
            f"({100 * head.balanced:.1f} %) than the last layer's classifier ({100 * last:.1f} %)"
        )
    said = remarks.on_probes(found, train.names, head)
    if len(own_labels) < total:
        said = _sampled(said, of_split)
    numbers = {
        "layers": train.names,
        "accuracies": found.accuracies,
        "intervals": found.intervals,
        "balanced": found.balanced,
        "head": None if head is None else head.accuracy,
        "head_balanced": None if head is None else head.balanced,
        "train_images": len(labels),
        "validation_images": len(own_labels),
    }
    return Drawn("What each layer knows", figure, reading, said, numbers)


FIGURES: dict[str, Callable[[Subject], Drawn]] = {
    "filters": _filters,
    "positions": _positions,
    "attention_distance": _attention_distance,
    "attention_entropy": _attention_entropy,
    "layer_similarity": _layer_similarity,
    "token_norms": _token_norms,
    "embeddings": _embeddings,
    "layer_probes": _layer_probes,
}
