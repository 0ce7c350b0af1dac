import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrail import api
from vitrail import suggestions as module
from vitrail.data.named import read_digits
from vitrail.errors import ConfigError
from vitrail.predictions import Prediction
from vitrail.suggestions import Candidates, Suggestion, choose_diverse, write_suggestions


def unit(*degrees: float) -> np.ndarray:
    """Vectors of length 1 in the plane, at these angles."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def said(image: str, margin: float) -> Prediction:
    high, low = 0.5 + margin / 2, 0.5 - margin / 2
    return Prediction(image, "a", high, (("a", high), ("b", low)))


def content(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def filled(*images: tuple[str, float, float], known: set[str] | None = None) -> Candidates:
    """Images as (name, margin, angle of its features)."""
    candidates = Candidates(known)
    for name, margin, angle in images:
        candidates.add(said(name, margin), content(name), 7 * unit(angle)[0])
    return candidates


def test_scores_by_hand():
    places, scores = choose_diverse(np.array([0.9, 1.0, 0.5, 0.8]), unit(0, 0, 180, 90), 4)
    # 1 first. Then 0 is a copy of it (0.9 x 0), 2 lies opposite (0.5 x 1), 3 at a right angle (0.8 x sqrt(2) / 2).
    assert places.tolist() == [1, 3, 2, 0]
    np.testing.assert_allclose(scores, [1, 0.8 * 0.5**0.5, 0.5 * 0.5**0.5, 0], atol=1e-4)


def test_the_choice_is_greedy():
    """Against the definition, written out."""
    numbers = np.random.default_rng(0)
    vectors = numbers.normal(size=(40, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    uncertain = numbers.random(40)
    chosen: list[int] = []
    for _ in range(12):
        score = {
            place: uncertain[place]
            * min([1, *(np.linalg.norm(vectors[place] - vectors[other]) / 2 for other in chosen)])
            for place in range(40)
            if place not in chosen
        }
        chosen.append(max(score, key=score.__getitem__))
    places, scores = choose_diverse(uncertain, vectors, 12)
    assert places.tolist() == chosen
    assert (np.diff(scores) <= 0).all()


def test_a_hundred_near_copies_of_one_hard_image_are_not_all_listed():
    copies = [(f"copy {index}", 0.0, 40 + index / 1000) for index in range(100)]
    others = [(f"other {index}", 0.3, 10.0 * index) for index in range(30)]
    names = [suggestion.image for suggestion in filled(*copies, *others).choose(20)]
    assert names[0] == "copy 0"
    assert sum(name.startswith("copy") for name in names) == 1
    by_margin_alone = sorted([*copies, *others], key=lambda image: image[1])[:20]
    assert all(name.startswith("copy") for name, _, _ in by_margin_alone)


def test_uncertain_images_come_before_sure_ones():
    names = [suggestion.image for suggestion in filled(("sure", 0.99, 180), ("no", 0.1, 0), ("nor", 0.2, 60)).choose(3)]
    assert names == ["no", "nor", "sure"]


def test_copies_and_known_images_are_left_out_and_counted():
    candidates = filled(("a", 0.5, 0), ("b", 0.1, 90), ("a", 0.5, 0), ("a", 0.5, 0), known={content("b"), content("z")})
    assert (len(candidates), candidates.num_copies, candidates.num_known) == (1, 2, 1)
    assert [suggestion.image for suggestion in candidates.choose(5)] == ["a"]


def test_what_a_suggestion_says():
    (suggestion,) = filled(("a", 0.25, 0)).choose(1)
    assert suggestion == Suggestion("a", 0.75, 0.25, "a", 0.625, "a 62.5 % or b 37.5 %")
    assert json.loads(json.dumps(suggestion.to_dict()))["reason"] == suggestion.reason


def test_few_candidates_or_classes():
    assert Candidates().choose(3) == []
    lonely = Candidates()
    lonely.add(Prediction("x", "only", 1.0, (("only", 1.0),)), content("x"), np.zeros(3, np.float32))
    (suggestion,) = lonely.choose(3)
    assert (suggestion.margin, suggestion.score, suggestion.reason) == (1.0, 0.0, "only 100.0 %")


def test_of_very_many_only_the_most_uncertain_are_compared(monkeypatch):
    monkeypatch.setattr(module, "MOST_CANDIDATES", 3)
    images = [(str(index), index / 10, 36.0 * index) for index in range(10)]
    assert {suggestion.image for suggestion in filled(*images).choose(1)} == {"0"}
    assert {suggestion.image for suggestion in filled(*images).choose(2)} <= {"0", "1", "2", "3"}
    assert len(filled(*images).choose(8)) == 8


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_suggestions(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    found = filled(("ä.png", 0.25, 0), ("b.png", 0.5, 90)).choose(2)
    rows = [suggestion.to_dict() for suggestion in found]
    write_suggestions(path, found)
    if suffix == ".jsonl":
        assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == rows
    elif suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            assert [*csv.DictReader(file)] == [{key: str(value) for key, value in row.items()} for row in rows]
    else:
        assert pq.read_table(path).to_pylist() == rows
        write_suggestions(path, [])
        assert pq.read_table(path).schema.field("score").type == pa.float64()


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not end in"):
        write_suggestions(tmp_path / "out.txt", [])


@pytest.mark.slow
def test_suggested_labels_help_more_than_as_many_random_ones(tmp_path):
    """Digits, 80 labels and 100 more: the test accuracy that they bring, mean over seeds."""
    digits = read_digits()
    settings = {"model.embed_dim": 32, "model.depth": 1, "training.batch_size": 32, "training.learning_rate": 5e-3}
    settings["evaluation.report"] = False

    def save(folder: Path, indices: Iterable[int], labelled: bool = True) -> None:
        for index in indices:
            parent = folder / str(digits.labels[index]) if labelled else folder
            parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.pixels[index, ..., 0]).save(parent / f"{index}.png")

    def trained(name: str, indices: Iterable[int], seed: int) -> api.Run:
        save(tmp_path / name / "train", indices)
        save(tmp_path / name / "test", test)
        return api.train(tmp_path / name, epochs=120, seed=seed, settings=settings, out=tmp_path / f"{name} run")

    gains: list[float] = []
    for seed in range(5):
        order = np.random.default_rng(100 + seed).permutation(len(digits)).tolist()
        test, labelled, unlabelled = order[:600], order[600:680], order[680:]
        run = trained(f"{seed} few", labelled, seed)
        save(tmp_path / f"{seed}", [*labelled, *unlabelled], labelled=False)
        predictions = api.predict(run.path, tmp_path / f"{seed}", suggest=100)
        suggested = [int(Path(suggestion.image).stem) for suggestion in predictions.suggestions]
        assert {*suggested} <= {*unlabelled}  # those with labels are known
        accuracy = {
            name: trained(f"{seed} {name}", [*labelled, *more], seed).result["test"]["accuracy"]
            for name, more in (("suggested", suggested), ("random", unlabelled[:100]))
        }
        gains.append(accuracy["suggested"] - accuracy["random"])
    assert np.mean(gains) > 0.005


def test_of_several_labels_the_most_doubtful_decides():
    shares = {"sea": 0.9, "sky": 0.45, "sun": 0.01}
    wavering = Prediction("x.png", "sea", 0.9, (("sea", 0.9), ("sky", 0.45)), probabilities=shares)
    sure = Prediction("y.png", "sea", 0.9, (("sea", 0.9),), probabilities={"sea": 0.9, "sky": 0.02})
    candidates = Candidates()
    for prediction, vector in zip((sure, wavering), unit(0, 90), strict=True):
        candidates.add(prediction, content(prediction.image), vector)
    first, second = candidates.choose(2)
    assert (first.image, first.label, first.probability) == ("x.png", "sky", 0.45)
    assert first.margin == pytest.approx(0.1)
    assert first.reason == "sky 45.0 % or not"
    assert (second.label, second.margin) == ("sea", pytest.approx(0.8))
