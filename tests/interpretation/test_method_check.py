"""Which method to trust: measures with intervals, and advice."""

from pathlib import Path

import numpy as np
import pytest

from vitrail.errors import ConfigError, DataError
from vitrail.interpretation.method_check import MEASURES, advise, check_methods, compare
from vitrail.interpretation.methods import METHODS
from vitrail.interpretation.subjects import Subject


def values(**means: float) -> dict[str, dict[str, np.ndarray]]:
    """Measures of 200 images by method: the image counts for much, and the methods differ by their means."""
    numbers = np.random.default_rng(0)
    images = numbers.normal(0, 1, 200)
    return {
        name: {measure: images + mean + numbers.normal(0, 0.1, 200) for measure in MEASURES}
        for name, mean in means.items()
    }


def test_differences_are_of_the_same_images() -> None:
    given = values(relevance=0.3, attention=0.2, random=0.0)
    table = compare(given)
    assert [*table] == ["relevance", "attention", "random"]
    entry = table["relevance"]
    assert {*entry} == {*MEASURES, "against_random", "against_attention"}
    assert {*table["attention"]} == {*MEASURES, "against_random"}
    assert {*table["random"]} == {*MEASURES}
    difference = entry["against_random"]["road"]
    assert difference["mean"] == pytest.approx((given["relevance"]["road"] - given["random"]["road"]).mean())
    low, high = difference["ci95"]
    assert low < difference["mean"] < high
    # The images vary ten times as much as a method on them, which the pairing takes out.
    assert high - low < 0.06
    assert entry["road"]["ci95"][1] - entry["road"]["ci95"][0] > 0.2


def test_intervals_are_those_of_a_mean() -> None:
    table = compare({"rollout": values(rollout=0.0)["rollout"], "random": values(random=0.0)["random"]})
    found = table["rollout"]["deletion"]
    numbers = values(rollout=0.0)["rollout"]["deletion"]
    assert np.allclose(found["ci95"], numbers.mean() + np.array([-1.96, 1.96]) * numbers.std() / 200**0.5, atol=0.02)
    assert compare(values(a=0.0, random=0.0), seed=3) == compare(values(a=0.0, random=0.0), seed=3)


@pytest.mark.parametrize(
    ("means", "best", "beginning"),
    [
        (
            {"relevance": 0.5, "rollout": 0.2, "random": 0.0}, ["relevance"],
            "Use relevance, the default: it is the most faithful here (insertion less deletion 0.",
        ),
        (
            {"relevance": 0.2, "rollout": 0.5, "random": 0.0}, ["rollout"],
            "Use rollout, not relevance, the default: it is the most faithful here (",
        ),
        (
            {"relevance": 0.5, "rollout": 0.5, "occlusion": 0.1, "random": 0.0}, ["relevance", "rollout"],
            "Use relevance, the default: r",
        ),
        (
            {"relevance": 0.1, "rollout": 0.5, "occlusion": 0.5, "random": 0.0}, ["occlusion", "rollout"],
            "; relevance, the default, is less faithful: ",
        ),
        (
            {"relevance": -0.5, "rollout": 0.0, "random": 0.0}, [],
            "Trust no map of this model: not even the best method, rollout, is better than chance here (",
        ),
    ],
)  # fmt: skip
def test_advice_is_one_sentence(means: dict[str, float], best: list[str], beginning: str) -> None:
    found, sentence = advise(compare(values(**means)), "relevance")
    assert sorted(found) == best
    assert beginning in sentence
    assert sentence.endswith(")")
    if beginning[0] != ";":
        assert sentence.startswith(beginning)
    if len(best) > 1:
        assert "cannot be told apart here" in sentence


def test_advice_says_where_road_disagrees() -> None:
    given = values(relevance=0.5, rollout=0.2, random=0.0)
    given["relevance"]["road"], given["rollout"]["road"] = given["rollout"]["road"], given["relevance"]["road"]
    _, sentence = advise(compare(given), "relevance")
    assert sentence.endswith("; but ROAD finds rollout best")


def reads_a_corner(images: np.ndarray) -> np.ndarray:
    """Class 1 where the corner is bright, and class 0 where it is dark."""
    seen = images[:, :4, :4, 0].mean(axis=(1, 2)) / 20 - 6.4
    return np.stack([-seen, seen], axis=1).astype(np.float32)


def corners(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (num_images, 16, 16, 1), dtype=np.uint8)
    labels = np.arange(num_images) % 2
    images[:, :4, :4] = (200 * labels + 20)[:, None, None, None]
    return images, labels


def test_a_model_that_gives_answers_alone_is_explained_by_occlusion() -> None:
    images, labels = corners(20)
    heard: list[tuple[int, int]] = []
    subject = Subject(reads_a_corner, np.array([128.0], np.float32))
    found = check_methods(subject, images, labels, seed=1, report=lambda *counts: heard.append(counts))
    assert [*found["methods"]] == ["occlusion", "random"]
    assert found["best"] == ["occlusion"]
    assert found["default"] == "occlusion"
    assert found["grid"] == [14, 14]
    assert (found["images"], found["steps"]) == (20, 20)
    assert {*found["left_out"]} == {*METHODS} - {"occlusion"}
    entry = found["methods"]["occlusion"]
    assert entry["against_random"]["faithfulness"]["ci95"][0] > 0.1
    assert len(entry["curves"]["deletion"]) == len(entry["curves"]["shares"]) == 21
    assert heard[-1][0] == heard[-1][1]
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    assert found["mosaics"] == 0  # a corner of a mosaic is no corner of the image


def test_mosaics_are_those_that_the_model_sees() -> None:
    # A blank is neither; a bright spot anywhere is class 1, a dark one class 0.
    def answer(images: np.ndarray) -> np.ndarray:
        bright, dark = images.max(axis=(1, 2, 3)), 255.0 - images.min(axis=(1, 2, 3))
        return np.stack([dark, bright], axis=1).astype(np.float32) / 10

    images = np.full((40, 16, 16, 1), 128, np.uint8)
    labels = np.arange(40) % 2
    images[:, 4:8, 4:8] = (255 * labels)[:, None, None, None]
    found = check_methods(Subject(answer, np.array([128.0], np.float32)), images, labels)
    # Where the one spot of its class is gone, three of the other are left.
    assert found["mosaics"] == 40
    pointed = found["methods"]["occlusion"]["mosaics"]
    assert pointed["hits"]["mean"] > 0.95
    assert pointed["share_inside"]["mean"] > 0.95
    assert found["methods"]["random"]["mosaics"]["hits"]["mean"] == 0.25


def test_a_trained_model_has_all_methods_on_one_grid(digits_run: Path) -> None:
    from vitrail import api
    from vitrail.data.named import read_digits

    classifier = api.load(digits_run)
    digits = read_digits()
    subject = Subject.of(classifier.engine, classifier.card.model)
    pixels, labels = digits.pixels[:12], digits.labels[:12]
    found = check_methods(subject, pixels, labels, probabilities=classifier.calibrated)
    assert {*found["methods"]} == {*METHODS, "random"}
    assert found["grid"] == [2, 2]
    assert found["left_out"] == {}
    for name, entry in found["methods"].items():
        assert all(0 <= entry[measure]["mean"] <= 1 for measure in ("deletion", "insertion"))
        faithfulness = entry["insertion"]["mean"] - entry["deletion"]["mean"]
        assert entry["faithfulness"]["mean"] == pytest.approx(faithfulness)
        if name != "random":
            assert entry["seconds_per_image"] > 0
    some = check_methods(subject, pixels[:3], methods=["rollout", "rollout"])
    assert [*some["methods"]] == ["rollout", "random"]


def test_mistakes_are_refused(digits_run: Path) -> None:
    subject = Subject(reads_a_corner, np.array([128.0], np.float32))
    with pytest.raises(ConfigError, match="answers alone"):
        check_methods(subject, corners(3)[0], methods=["relevance"])
    with pytest.raises(ConfigError, match="No method named 'oclusion'"):
        check_methods(subject, corners(3)[0], methods=["oclusion"])
    with pytest.raises(DataError, match="There are no images to check the methods on"):
        check_methods(subject, corners(0)[0])


@pytest.mark.slow
def test_the_default_beats_random_maps_and_last_layer_attention_on_mnist(data_folder, tmp_path: Path) -> None:
    from vitrail import api
    from vitrail.data.sources import open_dataset
    from vitrail.interpretation.methods import default_method

    data_folder("mnist")
    settings = {"training.compile": "off", "evaluation.report": False}
    classifier = api.load(api.train("mnist", epochs=1, settings=settings, out=tmp_path / "run").path)
    test = open_dataset("mnist").prepared("test", classifier.card.preprocess)
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:256])
    subject = Subject.of(classifier.engine, classifier.card.model)
    default = default_method(subject)
    found = check_methods(
        subject, np.asarray(test.pixels[chosen]), methods=[default, "attention"], probabilities=classifier.calibrated
    )
    for baseline in ("against_random", "against_attention"):
        differences = found["methods"][default][baseline]
        assert differences["deletion"]["ci95"][1] < 0
        assert differences["insertion"]["ci95"][0] > 0
        assert differences["road"]["ci95"][0] > 0
    assert found["best"] == [default]
