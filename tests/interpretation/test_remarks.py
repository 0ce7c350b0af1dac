import numpy as np
import pytest

from vitrail.interpretation import remarks
from vitrail.interpretation.distances import AttentionSpread
from vitrail.interpretation.filters import Filters
from vitrail.interpretation.layer_probes import LayerProbes
from vitrail.interpretation.norms import find_outliers
from vitrail.interpretation.positions import Positions, Structure
from vitrail.interpretation.remarks import Head


def filters(first: float, num_weak: int = 0) -> Filters:
    return Filters(np.zeros((2, 4, 4, 3)), np.array([first, 0.1]), 192, num_weak, 0.05)


def test_filters_that_learned_nothing():
    assert remarks.on_filters(filters(0.3)) == ()
    assert remarks.on_filters(filters(0.06, 3)) == (
        "3 of 192 filters are nearly zero, below 1 % of the strongest",
        "The first component explains 6.0 % of the filters' variance, and of random filters it would explain 5.0 %: "
        "the projection has learned little",
    )


def test_positions_that_learned_nothing():
    alike = np.zeros((4, 4, 4, 4), np.float32)
    learned = Positions(alike, "learned", 16, 1)
    little = Structure(0.02, 0, 0, 0.01)
    assert remarks.on_positions(learned, Structure(0.6, 0.3, 0.3, 0.1)) == ()
    assert remarks.on_positions(learned._replace(kind="fixed"), little) == ()
    assert remarks.on_positions(learned._replace(similarity=alike[:2, :2, :2, :2]), little) == ()
    (said,) = remarks.on_positions(learned, little)
    assert said.startswith("Neighbouring patches' positions are hardly more alike (0.02) than others' (0.01)")


def spread(distances, entropies, grid=(4, 4)) -> AttentionSpread:
    return AttentionSpread(np.array(distances), np.array(entropies), 40.0, 20.0, 3.0, grid, 8)


def test_heads_that_look_near_or_far():
    usual = spread([[5.0, 19.0], [15.0, 18.0]], [[1.0, 2.0], [2.0, 2.5]])
    assert remarks.on_distances(usual, (32, 32)) == ()
    assert remarks.on_entropies(usual) == ()
    odd = spread([[19.5, 19.0], [3.0, 0.0]], [[2.99, 3.0], [2.0, 0.1]])
    assert remarks.on_distances(odd, (32, 32)) == (
        "No head of the first block looks nearby: the nearest one's distance is 19.0 pixels, and 20.0 is that of "
        "attending to all patches alike",
        "Looking hardly beyond their own patch: all heads of block 1",
    )
    assert remarks.on_entropies(odd) == (
        "Looking at hardly more than one token each time: block 1 head 1",
        "Looking at all tokens alike, which chooses nothing: all heads of block 0",
    )
    few = spread([[3.0]], [[1.0]], grid=(2, 2))
    assert remarks.on_distances(few, (8, 8)) == ()
    assert remarks.few_patches((2, 2))
    assert not remarks.few_patches((4, 4))


def test_layers_that_change_little_or_much():
    names = ["0", "1", "2"]
    assert remarks.on_similarity(np.array([[1, 0.8, 0.6], [0.8, 1, 0.9], [0.6, 0.9, 1]]), names) == ()
    odd = np.array([[1, 0.3, 0.3], [0.3, 1, 0.995], [0.3, 0.995, 1]])
    assert remarks.on_similarity(odd, names) == (
        "Changing little of what they are given (similarity 0.99 or more): block 2",
        "The sharpest turn is between block 0 and block 1, with a similarity of 0.30",
    )
    assert remarks.on_similarity(odd, ["conv1", "layer1", "layer2"])[0].endswith(": layer2")
    assert len(remarks.on_similarity(odd, ["conv1", "layer1", "layer2"])) == 1
    assert remarks.on_similarity(np.ones((1, 1)), ["0"]) == ()


@pytest.mark.parametrize(
    ("registers", "advice"),
    [
        (0, "say nothing of the image, and registers take them up (model.reg_tokens=4)"),
        (1, ", although the model has 1 register"),
        (4, ", although the model has 4 registers"),
        (None, "; attention maps have spots there that say nothing of the image"),
    ],
)
def test_outlier_tokens_are_warned_of(registers, advice):
    norms = np.exp(np.random.default_rng(0).normal(0, 0.1, (4, 20, 16)))
    grid = (4, 4)
    assert remarks.on_norms(find_outliers(norms), list("0123"), grid, registers) == ()
    norms[2:, ::2, 6] = 8
    (said,) = remarks.on_norms(find_outliers(norms), list("0123"), grid, registers)
    assert said.startswith(
        "Outlier tokens: from block 2 to block 3, up to 3.1 % of the patches are over 3 times as long as the median"
    )
    assert "most often at row 2, column 3 (50.0 % of the images)" in said
    assert said.endswith(advice)


def test_vectors_on_a_line_and_mistakes_of_one_kind():
    labels = np.arange(100) % 10
    predicted = labels.copy()
    assert remarks.on_embeddings(np.array([0.3, 0.2]), labels, predicted, list("0123456789")) == ()
    predicted[labels == 3] = 8
    assert remarks.on_embeddings(np.array([0.9, 0.02]), labels, predicted, list("0123456789")) == (
        "The vectors lie almost along one line, which holds 90.0 % of their variance",
        "10 of 10 mistakes are between 3 and 8",
    )
    assert len(remarks.on_embeddings(np.array([0.9, 0.02]), labels, None, list("0123456789"))) == 1
    assert remarks.on_embeddings(np.array([0.9, 0.02]), labels % 2, 1 - labels % 2, ["a", "b"]) == ()


def probes(*accuracies: float, chance: float = 0.1, half: float = 0.02) -> LayerProbes:
    values = np.array(accuracies)
    return LayerProbes(values, np.stack([values - half, values + half], axis=1), (1.0,) * len(values), chance, values)


def test_layers_that_know_more_than_the_last():
    names = list("01234")
    assert remarks.on_probes(probes(0.5, 0.6, 0.7, 0.8, 0.9), names, Head(0.9, 0.9)) == ()
    assert remarks.on_probes(probes(0.5, 0.6, 0.95, 0.8, 0.85), names, Head(0.9, 0.9)) == (
        "Block 2 knows more of the classes (95.0 %) than the last layer (85.0 %)",
    )
    assert remarks.on_probes(probes(0.5, 0.89, 0.9, 0.9, 0.9), names, Head(0.9, 0.9)) == (
        "Already block 1 tells the classes about as well as the last layer (89.0 % and 90.0 %); fewer layers may do",
    )
    assert (
        remarks.on_probes(probes(0.5, 0.89, 0.9, 0.9, 0.9, half=0.2), names, Head(0.9, 0.9)) == ()
    )  # too few images to tell
    assert remarks.on_probes(probes(0.5, 0.6, 0.7, 0.8, 0.9), names, Head(0.7, 0.6)) == (
        "A linear classifier on the last layer's vectors is better (90.0 %, balanced accuracy 90.0 %) than the model's "
        "own head (70.0 % and 60.0 %)",
    )
    assert remarks.on_probes(probes(0.5, 0.6, 0.7, 0.8, 0.9), names, Head(0.7, 0.95)) == ()  # chosen by that
    relu = ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert remarks.on_probes(probes(0.95, 0.6, 0.7, 0.8, 0.85), relu, None)[0].startswith("The stem knows more")
    assert remarks.on_probes(probes(0.1, 0.1, 0.1, 0.1, 0.1), names, None) == (
        "No layer's vectors tell the classes apart",
    )
