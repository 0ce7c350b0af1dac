"""What is unusual in a model, in sentences with numbers; what is as in most models is not said."""

# Shapes: L layers, H heads, N images

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import some
from vitrail.interpretation.distances import AttentionSpread
from vitrail.interpretation.filters import Filters
from vitrail.interpretation.gathering import STEM
from vitrail.interpretation.layer_probes import LayerProbes
from vitrail.interpretation.norms import LEAST_RATIO, Outliers
from vitrail.interpretation.positions import Positions, Structure

Remarks = tuple[str, ...]


class Head(NamedTuple):
    """How well the model's own head does on the images that probes are read on."""

    accuracy: float
    balanced: float
    """the mean over classes of the share of their images that is right"""


_LEAST_PATCHES = 16
_NEAR_RANDOM = 1.5  # times what random filters would have
_ALIKE_POSITIONS = 0.1  # by how much neighbours are more alike than other patches in hardly any trained model
_ONE_LINE = 0.8
_SAME_LAYER, _TURN = 0.99, 0.5
_ONE_TOKEN, _ALL_TOKENS = 0.05, 0.99  # of the largest entropy
_MANY_MISTAKES, _PAIR_SHARE = 6, 1 / 3
_SURE = 0.1  # width of an interval; where it is wider, any two layers are about as good


def on_filters(found: Filters) -> Remarks:
    """Filters that do nothing, and a projection that looks as it did before training."""
    said: list[str] = []
    if found.num_weak:
        said.append(f"{found.num_weak} of {found.num_filters} filters are nearly zero, below 1 % of the strongest")
    if found.explained is not None and found.random_share is not None and len(found.explained) > 1:
        first = float(found.explained[0])
        if first < _NEAR_RANDOM * found.random_share:
            said.append(
                f"The first component explains {_percent(first)} of the filters' variance, and of random filters it "
                f"would explain {_percent(found.random_share)}: the projection has learned little"
            )
    return tuple(said)


def on_positions(found: Positions, structure: Structure) -> Remarks:
    """Learned positions that do not say what lies near."""
    difference = structure.neighbours - structure.others
    if few_patches(found.similarity.shape[:2]) or found.kind != "learned" or not difference < _ALIKE_POSITIONS:
        return ()
    return (
        f"Neighbouring patches' positions are hardly more alike ({structure.neighbours:.2f}) than others' "
        f"({structure.others:.2f}): the model has learned little of where patches lie",
    )


def on_distances(found: AttentionSpread, image_size: tuple[int, int]) -> Remarks:
    """Layers and heads that look unusually near or far."""
    grid = found.grid
    patch_pixels = min(side / count for side, count in zip(image_size, grid, strict=True))
    if few_patches(grid):  # near and far are hardly different
        return ()
    said: list[str] = []
    nearest = float(found.distances[0].min())
    if nearest > 0.9 * found.uniform_distance:
        said.append(
            f"No head of the first block looks nearby: the nearest one's distance is {nearest:.1f} pixels, and "
            f"{found.uniform_distance:.1f} is that of attending to all patches alike"
        )
    near = _heads(found.distances < patch_pixels / 2)
    if near:
        said.append(f"Looking hardly beyond their own patch: {some(near)}")
    return tuple(said)


def few_patches(grid: tuple[int, int]) -> bool:
    """Whether patches are so few that near and far are hardly different."""
    return grid[0] * grid[1] < _LEAST_PATCHES


def on_entropies(found: AttentionSpread) -> Remarks:
    """Heads that look at one token, and heads that look at all alike."""
    said: list[str] = []
    one = _heads(found.entropies < _ONE_TOKEN * found.largest_entropy)
    if one:
        said.append(f"Looking at hardly more than one token each time: {some(one)}")
    every = _heads(found.entropies > _ALL_TOKENS * found.largest_entropy)
    if every:
        said.append(f"Looking at all tokens alike, which chooses nothing: {some(every)}")
    return tuple(said)


def on_similarity(alike: NDArray[np.float64], names: Sequence[str]) -> Remarks:
    """Layers that change little, and a sharp turn between two."""
    steps = np.diagonal(alike, offset=1)
    if not len(steps):
        return ()
    said: list[str] = []
    idle = [label(names[place + 1]) for place in np.flatnonzero(steps >= _SAME_LAYER).tolist()]
    if idle:
        said.append(f"Changing little of what they are given (similarity {_SAME_LAYER} or more): {some(idle)}")
    turn = int(steps.argmin())
    if steps[turn] < _TURN and names[turn].isdecimal():  # the stages of a CNN differ so as a rule
        said.append(
            f"The sharpest turn is between {label(names[turn])} and {label(names[turn + 1])}, "
            f"with a similarity of {max(0.0, steps[turn]):.2f}"
        )
    return tuple(said)


def on_norms(found: Outliers, names: Sequence[str], grid: tuple[int, int], num_registers: int | None) -> Remarks:
    """A warning of outlier tokens, where they begin and where they lie; None registers for a model that takes none."""
    if not found.layers:
        return ()
    last = found.layers[-1]
    often = int(found.places.argmax())
    row, column = often // grid[1] + 1, often % grid[1] + 1
    spots = "; attention maps have spots there that say nothing of the image"
    advice = spots if num_registers is None else f"{spots}, and registers take them up (model.reg_tokens=4)"
    if num_registers:
        advice = f", although the model has {num_registers} register{'s'[: num_registers > 1]}"
    return (
        f"Outlier tokens: from {label(names[found.layers[0]])} to {label(names[last])}, up to "
        f"{_percent(float(found.shares[list(found.layers)].max()))} of the patches are over {LEAST_RATIO:g} times as "
        f"long as the median, the longest {found.largest[last]:.1f} times, most often at row {row}, column {column} "
        f"({_percent(float(found.places[often]))} of the images){advice}",
    )


def on_embeddings(
    explained: NDArray[np.float64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64] | None,
    classes: Sequence[str],
) -> Remarks:
    """Vectors that lie along a line, and a pair of classes that most mistakes are between, if `predicted` tells."""
    said: list[str] = []
    if len(classes) > 2 and explained[0] > _ONE_LINE:
        said.append(
            f"The vectors lie almost along one line, which holds {_percent(float(explained[0]))} of their variance"
        )
    if predicted is None:
        return tuple(said)
    wrong = labels != predicted
    pairs = Counter(tuple(sorted(pair)) for pair in zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    if wrong.sum() >= _MANY_MISTAKES:
        (one, other), count = pairs.most_common(1)[0]
        num_pairs = len(classes) * (len(classes) - 1) / 2
        if count >= max(_PAIR_SHARE, 3 / num_pairs) * wrong.sum():
            said.append(f"{count} of {int(wrong.sum())} mistakes are between {classes[one]} and {classes[other]}")
    return tuple(said)


def on_probes(found: LayerProbes, names: Sequence[str], head: Head | None) -> Remarks:
    """An earlier layer that knows more than the last, or as much; a head that knows less than the last layer.

    The head is worse only where it is so by balanced accuracy as well, by which its run may have been chosen.
    """
    said: list[str] = []
    best, last = int(found.accuracies.argmax()), len(names) - 1
    low, high = found.intervals[last].tolist()
    if low <= found.chance:
        return ("No layer's vectors tell the classes apart",) if found.intervals[best, 0] <= found.chance else ()
    if found.intervals[best, 0] > high:
        said.append(
            f"{label(names[best]).capitalize()} knows more of the classes ({_percent(float(found.accuracies[best]))}) "
            f"than the last layer ({_percent(float(found.accuracies[last]))})"
        )
    enough = int(np.argmax(found.accuracies >= low))
    if last >= 3 and enough < last / 2 and high - low < _SURE:
        said.append(
            f"Already {label(names[enough])} tells the classes about as well as the last layer "
            f"({_percent(float(found.accuracies[enough]))} and {_percent(float(found.accuracies[last]))}); "
            "fewer layers may do"
        )
    accuracy, balanced = float(found.accuracies[last]), float(found.balanced[last])
    if head is not None and low > head.accuracy and balanced - (accuracy - low) > head.balanced:
        said.append(
            f"A linear classifier on the last layer's vectors is better ({_percent(accuracy)}, balanced accuracy "
            f"{_percent(balanced)}) than the model's own head ({_percent(head.accuracy)} and {_percent(head.balanced)})"
        )
    return tuple(said)


def label(name: str) -> str:
    """A layer in a sentence: block 3, a CNN's layer3, or its stem."""
    return f"block {name}" if name.isdecimal() else "the stem" if name == STEM else name


def _heads(members: NDArray[Any]) -> list[str]:
    """The heads (L, H) that are true: "block 2 head 0", or "all heads of block 2"."""
    found: list[str] = []
    for block, row in enumerate(members):
        if row.all():
            found.append(f"all heads of block {block}")
        else:
            found += [f"block {block} head {head}" for head in np.flatnonzero(row)]
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
