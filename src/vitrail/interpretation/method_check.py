"""Which method of explanation to trust for one model and its images: measures with intervals, and advice."""

# Shapes: N images, S points of a curve, V values, R resamples

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import softmax
from vitrail.evaluation.intervals import NUM_SAMPLES, percentile_interval
from vitrail.interpretation.cells import Probabilities, num_colors, regridded
from vitrail.interpretation.faithfulness import NUM_STEPS, deletion_curves, insertion_curves
from vitrail.interpretation.methods import METHODS, default_method, evidence_maps, impossible, possible_methods
from vitrail.interpretation.pointing import Planted, mosaics, pointing
from vitrail.interpretation.road import road
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target

RANDOM = "random"
ATTENTION = "attention"  # of the last layer, as it is without a layer
MEASURES = ("deletion", "insertion", "faithfulness", "road")
LEAST_MOSAICS = 10
_BLOCK = 16  # images between two reports
_GRID = 14  # cells along a side where the model has no patches

Values = Mapping[str, NDArray[np.float64]]
Report = Callable[[int, int], None]


@dataclass
class _Kept:
    """What is kept of one method while images pass."""

    values: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: {name: [] for name in MEASURES})
    curves: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: {"deletion": [], "insertion": []})
    shares: list[float] = field(default_factory=list[float])
    seconds: float = 0.0

    def joined(self) -> Values:
        """Each measure of all images, (N,)."""
        return {measure: np.concatenate(parts) for measure, parts in self.values.items()}

    def mean_curves(self) -> dict[str, list[float]]:
        """The shares of cells that have changed, and the mean probability at each, of both curves."""
        means = {measure: np.concatenate(rows).mean(axis=0).tolist() for measure, rows in self.curves.items()}
        return {"shares": self.shares, **means}


@dataclass
class _Count:
    """How many maps are done, for whoever wants to hear it."""

    total: int
    report: Report | None
    done: int = 0

    def add(self, number: int) -> None:
        self.done += number
        if self.report is not None:
            self.report(self.done, self.total)


def check_methods(
    subject: Subject,
    images: np.ndarray,
    labels: ArrayLike | None = None,
    *,
    methods: Sequence[str] | None = None,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
    probabilities: Probabilities = softmax,
    report: Report | None = None,
) -> dict[str, Any]:
    """How faithful each method's maps are to this model on these images, as plain numbers, ready for JSON.

    images uint8 (N, H, W, C) as the model takes them, each explained for the class it is taken for; labels (N,) make
    mosaics too. All maps are compared on one grid, that of the model's patches, so that a random map is as coarse as
    the others: pixels taken out at random destroy an image sooner than patches do. Images are the same for all methods,
    and so are the resamples that intervals are of. Raises ConfigError for methods that the model does not allow,
    DataError without images.
    """
    if not len(images):
        raise DataError("There are no images to check the methods on; give some")
    chosen = _chosen(subject, methods)
    planted = None if labels is None else _seen_mosaics(subject, images, labels, probabilities, seed)
    num_mosaics = 0 if planted is None else len(planted.labels)
    grid, count = _grid(subject, images), _Count(len(images) * (len(chosen) + 1) + num_mosaics * len(chosen), report)
    kept = {name: _Kept() for name in (*chosen, RANDOM)}
    targets = np.asarray(subject.answer(images)).argmax(axis=1)
    for start in range(0, len(images), _BLOCK):
        part = slice(start, start + _BLOCK)
        for name, found in kept.items():
            maps = _timed_maps(subject, images[part], targets[part], name, grid, seed + start, found)
            _measure(found, subject, images[part], maps, targets[part], num_steps, seed + start, probabilities)
            count.add(len(maps))
    table = compare({name: found.joined() for name, found in kept.items()}, seed)
    for name, found in kept.items():
        table[name]["curves"] = found.mean_curves()
        if name != RANDOM:
            table[name]["seconds_per_image"] = found.seconds / len(images)
    if planted is not None:
        _point(table, subject, planted, chosen, seed, count)
    best, sentence = advise(table, default_method(subject))
    return {
        "images": len(images),
        "grid": list(grid),
        "steps": len(kept[RANDOM].shares) - 1,
        "seed": seed,
        "default": default_method(subject),
        "methods": table,
        "left_out": {name: why for name in METHODS if (why := impossible(subject, name)) is not None},
        "mosaics": num_mosaics,
        "best": best,
        "advice": sentence,
    }


def compare(values: Mapping[str, Values], seed: int = 0) -> dict[str, dict[str, Any]]:
    """The mean of each measure of each method with its 95 % interval, and its differences from the two baselines.

    values: by method, by measure, (N,) numbers of the same images; "random" is a method. The keys of each method are
    the measures, {"mean", "ci95"}, and `against_random` and `against_attention`, the same of differences image by
    image, where there is such a method other than itself.
    """
    counts = _resamples(len(next(iter(values[RANDOM].values()))), seed)
    table: dict[str, dict[str, Any]] = {}
    for name, measures in values.items():
        table[name] = {measure: _interval(numbers, counts) for measure, numbers in measures.items()}
        for baseline in (RANDOM, ATTENTION):
            if baseline in values and name not in (baseline, RANDOM):
                other = values[baseline]
                table[name][f"against_{baseline}"] = {
                    measure: _interval(numbers - other[measure], counts) for measure, numbers in measures.items()
                }
    ranking = sorted((name for name in values if name != RANDOM), key=lambda name: -_mean(table, name, "faithfulness"))
    for measure in ("faithfulness", "road"):
        best = max(ranking, key=lambda name: _mean(table, name, measure))
        for name in ranking:
            behind = _interval(values[best][measure] - values[name][measure], counts)
            table[name][measure]["behind_best"] = behind
    return {name: table[name] for name in (*ranking, RANDOM)}


def advise(table: Mapping[str, Mapping[str, Any]], default: str) -> tuple[list[str], str]:
    """The methods to use, the best first, none where none is better than chance; and that as one sentence.

    A method is as good as the best if the interval of their difference in faithfulness includes 0.
    """
    ranking = [name for name in table if name != RANDOM]
    first = ranking[0]
    above = table[first]["against_random"]["faithfulness"]
    low, high = above["ci95"]
    by = f"insertion less deletion {above['mean']:.3f} above random maps, 95 % interval {low:.3f} to {high:.3f}"
    if low <= 0:
        return [], f"Trust no map of this model: not even the best method, {first}, is better than chance here ({by})"
    best = [name for name in ranking if _ties(table, name, "faithfulness")]
    by_road = [name for name in ranking if _ties(table, name, "road")]
    doubt = "" if {*best} & {*by_road} else f"; but ROAD finds {_listed(by_road)} best"
    if len(best) == 1:
        usual = "the default" if first == default else f"not {default}, the default"
        return best, f"Use {first}, {usual}: it is the most faithful here ({by}){doubt}"
    pick = default if default in best else first
    usual = ", the default" if pick == default else f"; {default}, the default, is less faithful"
    return best, f"Use {pick}{usual}: {_listed(best)} cannot be told apart here (of {first}: {by}){doubt}"


def _ties(table: Mapping[str, Mapping[str, Any]], name: str, measure: str) -> bool:
    return table[name][measure]["behind_best"]["ci95"][0] <= 0


def _mean(table: Mapping[str, Mapping[str, Any]], name: str, measure: str) -> float:
    return table[name][measure]["mean"]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _chosen(subject: Subject, methods: Sequence[str] | None) -> list[str]:
    if methods is None:
        return possible_methods(subject)
    for name in methods:
        why_not = impossible(subject, name)
        if why_not is not None:
            raise ConfigError(why_not)
    return list(dict.fromkeys(methods))


def _grid(subject: Subject, images: np.ndarray) -> tuple[int, int]:
    """The grid of the model's patches; of a model without, some cells of a few pixels."""
    rows, columns = images.shape[1:3]
    if impossible(subject, "rollout") is None:
        found = evidence_maps(subject, images[:1], [Target(0)], "rollout")
        return found.shape[1], found.shape[2]
    return min(_GRID, rows), min(_GRID, columns)


def _timed_maps(
    subject: Subject,
    images: np.ndarray,
    targets: NDArray[np.int64],
    name: str,
    grid: tuple[int, int],
    seed: int,
    found: _Kept,
) -> np.ndarray:
    """The maps of one method on the common grid; the seconds that they took are added to what is kept of it."""
    if name == RANDOM:
        return np.random.default_rng(seed).random((len(images), *grid))
    started = perf_counter()
    maps = evidence_maps(subject, images, [Target(int(target)) for target in targets], name)
    found.seconds += perf_counter() - started
    return regridded(maps, grid)


def _measure(
    found: _Kept,
    subject: Subject,
    images: np.ndarray,
    maps: np.ndarray,
    targets: NDArray[np.int64],
    num_steps: int,
    seed: int,
    probabilities: Probabilities,
) -> None:
    """Add the measures of some images to what is kept of a method."""
    answer = subject.answer
    deleted = deletion_curves(answer, images, maps, targets, subject.fill, num_steps, seed, probabilities)
    inserted = insertion_curves(answer, images, maps, targets, num_steps, seed, probabilities)
    measures = {
        "deletion": deleted.areas,
        "insertion": inserted.areas,
        "faithfulness": inserted.areas - deleted.areas,
        "road": road(answer, images, maps, targets, seed=seed, probabilities=probabilities).scores,
    }
    for measure, values in measures.items():
        found.values[measure].append(values)
    found.curves["deletion"].append(deleted.probabilities)
    found.curves["insertion"].append(inserted.probabilities)
    found.shares = deleted.shares.tolist()


def _seen_mosaics(
    subject: Subject, images: np.ndarray, labels: ArrayLike, probabilities: Probabilities, seed: int
) -> Planted | None:
    """Mosaics whose one image of a class the model sees: without it, the class is half as probable at most.

    None where fewer than LEAST_MOSAICS are left, or the images make none. At half the size a model may see nothing.
    """
    classes = np.asarray(labels)
    if classes.ndim != 1 or len(np.unique(classes)) < 2 or min(images.shape[1:3]) < 2:
        return None
    made = mosaics(images, classes, len(images), seed)
    without, colors = made.images.copy(), num_colors(made.images)
    without[..., :colors][made.regions] = np.rint(subject.fill)[:colors]
    rows = np.arange(len(made.labels))
    before, after = (probabilities(subject.answer(each))[rows, made.labels] for each in (made.images, without))
    seen = after <= before / 2
    if seen.sum() < LEAST_MOSAICS:
        return None
    return Planted(made.images[seen], made.labels[seen], made.regions[seen])


def _point(
    table: dict[str, dict[str, Any]],
    subject: Subject,
    planted: Planted,
    chosen: Sequence[str],
    seed: int,
    count: _Count,
) -> None:
    """Add to each method how far it points at the one image of its class in mosaics."""
    counts = _resamples(len(planted.labels), seed)
    for name in chosen:
        maps: list[np.ndarray] = []
        for start in range(0, len(planted.labels), _BLOCK):
            part = slice(start, start + _BLOCK)
            targets = [Target(int(label)) for label in planted.labels[part]]
            maps.append(evidence_maps(subject, planted.images[part], targets, name))
            count.add(len(targets))
        found = pointing(np.concatenate(maps), planted.regions, seed)
        table[name]["mosaics"] = {
            "hits": _interval(found.hits.astype(np.float64), counts),
            "share_inside": _interval(np.nan_to_num(found.shares), counts),
        }
    areas = float(planted.regions.mean())
    table[RANDOM]["mosaics"] = {"hits": {"mean": areas}, "share_inside": {"mean": areas}}


def _resamples(num_images: int, seed: int) -> NDArray[np.float64]:
    """How often each image is in each resample, as shares (R, N)."""
    numbers = np.random.default_rng(seed)
    return numbers.multinomial(num_images, np.full(num_images, 1 / num_images), NUM_SAMPLES) / num_images


def _interval(values: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, Any]:
    """The mean of values (N,) and its 95 % interval from resamples (R, N). Efron 1979."""
    low, high = percentile_interval(counts @ values)
    return {"mean": float(values.mean()), "ci95": [low, high]}
