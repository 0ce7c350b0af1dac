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
from vitrail.interpretation.filters import first_filters
from vitrail.interpretation.gathering import Look, sample
from vitrail.interpretation.layer_probes import probe_layers
from vitrail.interpretation.norms import find_outliers
from vitrail.interpretation.positions import position_similarity, position_structure
from vitrail.interpretation.projection import principal_components
from vitrail.interpretation.similarity import layer_similarity
from vitrail.models.vit import VisionTransformer

_PERCENTILES = (1, 25, 50, 75, 99)


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
        """The predicted place in the images' classes, -1 for another; None where the model knows none of them."""
        known = {name: place for place, name in enumerate(self.classes)}
        places = np.array([known.get(name, -1) for name in self.classifier.classes], np.int64)
        return places[logits.argmax(axis=1)] if (places >= 0).any() else None


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
            "blobs and colours are what a trained network has, speckle is what it began with"
        )
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
    found = subject.look.attention
    figure = figures.draw_attention_distance(found.distances, found.largest_distance, found.uniform_distance)
    reading = (
        "Each dot is a head, and its height how far from a patch the patches lie that it attends to: low blocks of "
        "trained models have heads that look nearby beside heads that look everywhere, high blocks look far"
    )
    numbers = {
        "pixels": found.distances,
        "largest": found.largest_distance,
        "uniform": found.uniform_distance,
        "images": found.num_images,
    }
    said = remarks.on_distances(found, subject.look.image_size)
    return Drawn("Attention distance", figure, reading, said, numbers)


def _attention_entropy(subject: Subject) -> Drawn:
    found = subject.look.attention
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
    reading = (
        "Each cell says how alike two layers' descriptions of the same tokens are (linear CKA), 1 for the same but for "
        "rotation and scale: a dark square is a run of layers that change little"
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
    split, images = look.part("test", "validation", "train")
    images = sample(images, look.num_images)
    labels = subject.labels(images)
    logits, vectors = subject.engine.logits_and_features(images.pixels[:])
    found = principal_components(vectors, 2)
    predicted = subject.predicted(logits)
    explained, points = np.zeros(2), np.zeros((len(vectors), 2))  # of two images, one component is all there is
    explained[: len(found.explained)], points[:, : found.points.shape[1]] = found.explained, found.points
    marked = (
        "crosses are mistakes" if predicted is not None else "the model has other classes, so no mistakes are marked"
    )
    reading = (
        f"Each point is a {split} image, on the two directions in which the vectors that the head reads differ most: "
        f"classes that lie apart are easy for the model, {marked}, and what overlaps here may still be apart elsewhere"
    )
    answers = labels if predicted is None else np.where(predicted < 0, (labels + 1) % len(subject.classes), predicted)
    said = remarks.on_embeddings(explained, labels, answers, subject.classes)
    numbers: dict[str, Any] = {"split": split, "images": len(images), "explained": explained}
    if predicted is not None:
        numbers["mistakes"] = int((labels != answers).sum())
    figure = figures.draw_embeddings(points, labels, None if predicted is None else answers, subject.classes, explained)
    return Drawn("Map of embeddings", figure, reading, said, numbers)


def _layer_probes(subject: Subject) -> Drawn:
    look = subject.look
    for name in ("train", "validation"):
        subject.labels(look.part(name)[1])
    (train, labels), (validation, own_labels) = look.vectors("train"), look.vectors("validation")
    found = probe_layers(
        [Labelled(vectors, labels) for vectors in train.vectors],
        [Labelled(vectors, own_labels) for vectors in validation.vectors],
    )
    predicted = subject.predicted(validation.logits)
    head = None
    if predicted is not None:
        hits = int((predicted == own_labels).sum())
        head = (hits / len(own_labels), *wilson_interval(hits, len(own_labels)))
    figure = figures.draw_layer_probes(found.accuracies, found.intervals, train.names, head)
    reading = (
        "Each point is how many validation images a linear classifier gets right that was trained on one layer's "
        "vectors alone: where the line stops rising, later layers add nothing to telling the classes apart"
    )
    said = remarks.on_probes(found, train.names, None if head is None else head[0])
    numbers = {
        "layers": train.names,
        "accuracies": found.accuracies,
        "intervals": found.intervals,
        "head": None if head is None else head[0],
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
