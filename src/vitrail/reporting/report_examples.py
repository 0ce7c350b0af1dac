"""Images that show what a run's numbers mean: confused classes, the best, worst and least certain answers, and why.

Pictures are made of decoded pixels alone, so that nothing else of a file, such as where a photograph was taken, gets
into the report.
"""

# Shapes: N images, K classes

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitrail.classifier import Classifier
from vitrail.data.dataset import ImageSet
from vitrail.data.preprocess import visible
from vitrail.errors import ConfigError, VitrailError
from vitrail.figures.overlay import paint_overlay
from vitrail.interpretation.methods import METHODS, default_method, evidence_maps
from vitrail.interpretation.occlusion import num_passes
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target
from vitrail.reporting.multilabel_figures import NO_LABEL
from vitrail.reporting.pages import is_small, thumbnail
from vitrail.reporting.report_answers import Answers
from vitrail.reporting.report_findings import MOST_PAIRS, Pair, pair_sentence, percent
from vitrail.reporting.report_paths import shown_name

NUM_SHOWN = 8  # of each group
NUM_OF_PAIR = 4
SIDE = 160  # pixels of a picture at the most
_LEAST_SIDE = 96  # of an overlay: evidence over 8x8 pixels needs room
_EXPLAINED = (NUM_SHOWN, 4, 2)  # of each group, as many as there is time for; fewer only by the fastest method
_FAST = ("relevance", "grad_cam")  # fastest first
_FAST_PASSES = 4  # that a map of these takes the time of: forwards, backwards, and what is watched


@dataclass(frozen=True)
class Example:
    """An image with its answer: `picture` and `overlay` are data: URIs, "" where there is none.

    The overlay is the evidence for the one class, or label, that `evidence` names.
    """

    name: str
    label: str
    given: str
    sure: float
    right: bool
    picture: str = ""
    overlay: str = ""
    evidence: str = ""
    small: bool = False

    @property
    def sure_text(self) -> str:
        """The probability as it is written under the picture."""
        return percent(self.sure)

    @property
    def sentence(self) -> str:
        """What the picture is, for those who do not see it."""
        how = f"with a probability of {percent(self.sure)}"
        if self.right:
            return f"Image of {self.label}, found {how}"
        return f"Image of {self.label}, taken for {self.given} {how}"


@dataclass(frozen=True)
class Group:
    """Answers of one kind, with a sentence about them."""

    title: str
    sentence: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Confusion:
    """A pair of classes, a sentence about it, and images of it."""

    sentence: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Examples:
    """All examples of a report; `reading` and `colours` say what overlays show, `missing` what could not be had."""

    groups: tuple[Group, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    reading: str = ""
    colours: str = ""
    missing: tuple[str, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether any image is seen."""
        return any(example.picture for group in self.groups for example in group.examples)


def chosen_groups(answers: Answers, count: int = NUM_SHOWN) -> dict[str, np.ndarray]:
    """Which images are shown, places by kind: best, worst and least certain.

    The best are the surest of each class in turn, as the surest of all are often of one class alone.
    """
    wrong = answers.wrong
    right = np.flatnonzero(~wrong)
    right = right[np.argsort(-answers.sure[right], kind="stable")]
    missed = np.flatnonzero(wrong)
    worst = missed[np.argsort(-answers.missed[missed], kind="stable")]
    closest = np.argsort(answers.margin, kind="stable")
    return {"best": _of_each_class(answers, right)[:count], "worst": worst[:count], "closest": closest[:count]}


def _of_each_class(answers: Answers, ranked: np.ndarray) -> np.ndarray:
    """Places in their order, but the first of each class before all second ones."""
    classes = answers.given[ranked]
    keys = [row.tobytes() for row in classes] if answers.multilabel else classes.tolist()
    seen: dict[bytes | int, int] = {}
    turns = [seen.setdefault(key, 0) for key in keys]
    for place, key in enumerate(keys):
        turns[place] = seen[key]
        seen[key] += 1
    return ranked[np.argsort(turns, kind="stable")]


def pair_places(answers: Answers, pair: Pair, count: int = NUM_OF_PAIR) -> np.ndarray:
    """The images of a class that were taken for another one, the surest mistakes first."""
    places = np.flatnonzero((answers.labels == pair.label) & (answers.given == pair.taken))
    return places[np.argsort(-answers.sure[places], kind="stable")][:count]


def make_examples(
    answers: Answers,
    pairs: Sequence[Pair],
    classes: Sequence[str],
    images: ImageSet | None,
    classifier: Classifier | None,
    passes: float = math.inf,
) -> Examples:
    """The examples of a split; without `images` names alone, without a `classifier` no overlays.

    Explaining takes no longer than so many forward `passes` of an image: by the default method where that leaves some
    of each group, else by the fastest one.
    """
    kinds = chosen_groups(answers)
    found = _Gallery(answers, classes, images)
    overlays, reading, colours, missing = dict[int, tuple[str, str]](), "", "", list[str]()
    if images is None:
        missing.append(f"The {answers.split} images are not here, so that none is shown")
    elif classifier is not None:
        try:
            overlays, reading, colours = _overlays(classifier, answers, found, [*kinds.values()], passes)
        except VitrailError as error:
            missing.append(f"Answers are not explained: {error}")
    told = {
        "best": ("Best", "Right, and the surest of each class."),
        "worst": ("Worst", "Wrong, and the further from the truth the earlier."),
        "closest": ("Least certain", "Right or wrong, but nearly answered otherwise."),
    }
    groups = [
        Group(*told[kind], tuple(found.example(place, *overlays.get(place, ())) for place in places.tolist()))
        for kind, places in kinds.items()
        if len(places)
    ]
    mistakes = _of_labels(answers, classes) if answers.multilabel else _of_pairs(answers, pairs, classes)
    confusions = [
        Confusion(sentence, tuple(found.example(place) for place in places.tolist())) for sentence, places in mistakes
    ]
    return Examples(tuple(groups), tuple(confusions), reading, colours, tuple(missing))


def _of_pairs(answers: Answers, pairs: Sequence[Pair], classes: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for pair in pairs:
        yield pair_sentence(pair, classes), pair_places(answers, pair)


def _of_labels(answers: Answers, classes: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The commonest mistakes about one label, which is not given or given wrongly."""
    missed, added = answers.labels & ~answers.given, answers.given & ~answers.labels
    counts = np.concatenate([missed.sum(axis=0), added.sum(axis=0)])
    for place in np.argsort(-counts, kind="stable")[:MOST_PAIRS].tolist():
        label, of_added = place % len(classes), place >= len(classes)
        there = answers.labels[:, label]
        images = int((~there).sum() if of_added else there.sum())
        if counts[place]:
            what = "given to images without it" if of_added else "not given to images that have it"
            shown = np.flatnonzero((added if of_added else missed)[:, label])
            shown = shown[np.argsort(-answers.missed[shown], kind="stable")][:NUM_OF_PAIR]
            yield f"{classes[label]} {what}: {counts[place]:,} of {images:,}", shown


class _Gallery:
    """The images of a split by the places of their answers; pictures are made when they are asked for."""

    def __init__(self, answers: Answers, classes: Sequence[str], images: ImageSet | None) -> None:
        self.answers, self.classes, self.images = answers, classes, images
        names = () if images is None else images.names
        self._places = (
            dict(zip(range(len(answers)), range(len(answers)), strict=True))
            if names == answers.names
            else _by_name(answers.names, names)
        )

    def pixels(self, place: int) -> np.ndarray | None:
        """The image (H, W, C) as the model gets it, None where it is not there."""
        found = self._places.get(place)
        return None if found is None or self.images is None else self.images.pixels[np.array([found])][0]

    def example(self, place: int, overlay: str = "", evidence: str = "") -> Example:
        """An image and its answer."""
        answers, pixels = self.answers, self.pixels(place)
        return Example(
            name=shown_name(answers.names[place]),
            label=self._named(answers.labels[place]),
            given=self._named(answers.given[place]),
            sure=float(answers.sure[place]),
            right=not bool(answers.wrong[place]),
            picture="" if pixels is None else thumbnail(visible(pixels[None])[0], SIDE),
            overlay=overlay,
            evidence=evidence,
            small=pixels is not None and is_small(pixels),
        )

    def _named(self, label: np.ndarray) -> str:
        if self.answers.multilabel:
            return ", ".join(self.classes[place] for place in np.flatnonzero(label).tolist()) or NO_LABEL
        return self.classes[int(label)]


def _by_name(wanted: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    known = {name: place for place, name in enumerate(names)}
    return {place: known[name] for place, name in enumerate(wanted) if name in known}


def _overlays(
    classifier: Classifier, answers: Answers, gallery: _Gallery, groups: Sequence[np.ndarray], passes: float
) -> tuple[dict[int, tuple[str, str]], str, str]:
    """The evidence for answers laid over their images, and what it is for, by place; its reading, and its colours.

    Raises ConfigError where no method is fast enough.
    """
    subject = Subject.of(classifier.engine, classifier.card.model)
    wanted = [place for places in groups for place in places.tolist()]
    known = {place: pixels for place in wanted if (pixels := gallery.pixels(place)) is not None}
    if not known:
        return {}, "", ""
    rows, columns = next(iter(known.values())).shape[:2]
    kept = [[place for place in places.tolist() if place in known] for places in groups]
    method, places = _affordable(subject, (rows, columns), kept, passes)
    pixels = np.stack([known[place] for place in places])
    targets = [_target(answers, place) for place in places]
    maps = evidence_maps(subject, pixels, [Target(target) for target in targets], method)
    entry = METHODS[method]
    painted = {
        place: (
            thumbnail(_painted(visible(image[None])[0], evidence, signed=entry.signed), SIDE),
            gallery.classes[target],
        )
        for place, image, evidence, target in zip(places, pixels, maps, targets, strict=True)
    }
    colours = "orange speaks for it, blue against" if entry.signed else "the more of it, the brighter"
    reading, default = f"{_spoken(method)}: {entry.reading}", default_method(subject)
    if method != default:
        reading += f"; {_spoken(default).lower()}, otherwise used for such images, would have taken too long"
    return painted, reading, colours


def _affordable(
    subject: Subject, shape: tuple[int, int], groups: Sequence[Sequence[int]], passes: float
) -> tuple[str, list[int]]:
    """The method whose maps take no more than so many passes, and the places, first of their groups, that it explains.

    Raises ConfigError where there is none.
    """
    for method in dict.fromkeys((default_method(subject), *_FAST)):
        each = _FAST_PASSES if method in _FAST else num_passes(shape)
        for most in (*_EXPLAINED, *((1,) if method in _FAST else ())):
            places = sorted({place for group in groups for place in group[:most]})
            if each * len(places) <= passes and METHODS[method].lacks(subject) is None:
                return method, places
    raise ConfigError("this would take too long with a model as slow as this one; vitrail explain takes its time")


def _spoken(method: str) -> str:
    return method.replace("_", " ").capitalize()


def _target(answers: Answers, place: int) -> int:
    """The class whose evidence is shown: the answer; of several labels the first given, else the first it has."""
    given = answers.given[place]
    if not answers.multilabel:
        return int(given)
    several = np.flatnonzero(given) if given.any() else np.flatnonzero(answers.labels[place])
    return int(several[0]) if several.size else 0


def _painted(pixels: np.ndarray, evidence: np.ndarray, *, signed: bool) -> np.ndarray:
    """An image (H, W, 1 or 3) under its evidence (rows, columns), large enough to see."""
    scale = max(1, -(-_LEAST_SIDE // max(pixels.shape[:2])))
    large = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    size = large.shape[1], large.shape[0]
    heat = np.asarray(Image.fromarray(evidence.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    return paint_overlay(large, heat, signed=signed)
