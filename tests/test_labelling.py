import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail import classifier as classifier_module
from vitrail.api import load
from vitrail.classifier import Classifier
from vitrail.data.content import content_hash
from vitrail.errors import CheckpointError, ConfigError
from vitrail.labelling import Wishes, label_images, list_inputs


@pytest.fixture(scope="module")
def trained(digits_run: Path) -> Classifier:
    return load(digits_run)


@pytest.fixture
def scans(tmp_path, digit_images) -> list[Path]:
    """Six digits and a file that is no image."""
    for index in range(6):
        Image.fromarray(digit_images[index]).save(tmp_path / f"{index}.png")
    (tmp_path / "torn.png").write_text("no image")
    return sorted(tmp_path.glob("*.png"))


def careful(trained: Classifier, threshold: float) -> Classifier:
    return Classifier(trained.engine, trained.card.model_copy(update={"reject_threshold": threshold}))


def test_predictions_and_nothing_else(trained, scans):
    heard: list[tuple[int, int]] = []
    found = label_images(trained, scans, Wishes(), report=lambda done, total: heard.append((done, total)))
    assert found == list(trained.predict_many(scans))
    assert (found.suggestions, found.sorted, found.notes) == (None, None, ())
    assert heard == [(done, 7) for done in range(1, 8)]


def test_suggestions_come_with_the_same_predictions(trained, scans, digit_images):
    known = {content_hash(digit_images[2])}
    found = label_images(trained, [*scans, scans[0]], Wishes(suggest=9), known=known)
    assert found[:7] == list(trained.predict_many(scans))
    assert sorted(suggestion.image for suggestion in found.suggestions) == [
        str(scans[index]) for index in (0, 1, 3, 4, 5)
    ]
    assert found.notes == (
        "1 image that the run was trained or tested on left out",
        "1 image with the same pixels as another one left out",
        "9 images were asked for, and there are 5",
    )
    (note,) = label_images(trained, scans, Wishes(suggest=1)).notes
    assert note.startswith("The run does not say which images it was trained on")


def test_the_table_is_of_suggestions_where_these_were_asked_for(trained, scans, tmp_path):
    wishes = Wishes(output=tmp_path / "out.jsonl", suggest=2)
    found = label_images(trained, scans, wishes)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [suggestion.to_dict() for suggestion in found.suggestions]


def test_sorting_with_a_threshold_and_without(trained, scans, tmp_path):
    found = label_images(trained, scans, Wishes(sort=tmp_path / "out"))
    assert sum(found.sorted.folders.values()) == found.sorted.copied == 6
    (note,) = found.notes
    assert note.startswith("Nothing is sorted as not sure, as the model has no reject threshold; train with --set")
    found = label_images(careful(trained, 1.0), scans, Wishes(sort=tmp_path / "unsure"))
    assert (found.sorted.folders, found.notes) == ({"not_sure": 6}, ())
    assert {prediction.decision for prediction in found} == {"not sure", None}


def test_a_disk_that_is_full_does_not_cost_the_table(trained, scans, tmp_path):
    wishes = Wishes(output=tmp_path / "out.jsonl", sort=tmp_path / "out")
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be put into"):
        label_images(trained, scans, wishes)
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 7


def test_what_lies_in_the_sorted_folder_is_no_input(scans, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.png").touch()
    assert list_inputs([tmp_path], Wishes()) == ([*scans[:6], tmp_path / "out" / "x.png", scans[6]], [])
    kept, notes = list_inputs([tmp_path], Wishes(sort=tmp_path / "out"))
    assert (kept, notes) == (scans, [f"1 image in {tmp_path / 'out'} left out"])
    with pytest.raises(ConfigError, match=r"All 8 images lie in .* already; sort into another folder"):
        list_inputs([tmp_path], Wishes(sort=tmp_path))


def test_wishes_that_cannot_be_fulfilled(tmp_path):
    with pytest.raises(ConfigError, match="suggest=0 is not possible; ask for 1 image or more"):
        Wishes(suggest=0).check()
    with pytest.raises(ConfigError, match="--link says how --sort puts images into folders"):
        Wishes(link=True).check()
    with pytest.raises(ConfigError, match="does not end in"):
        Wishes(output=tmp_path / "x", sort=tmp_path / "out").check()
    assert list(tmp_path.iterdir()) == []
    Wishes(sort=tmp_path / "out").check()
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("wishes", [Wishes(), Wishes(suggest=5)])
def test_images_are_not_kept_in_memory(trained, tmp_path, monkeypatch, wishes):
    monkeypatch.setattr(classifier_module, "CHUNK", 2)
    paths = [tmp_path / f"{index}.png" for index in range(24)]
    for index, path in enumerate(paths):
        Image.fromarray(np.full((700, 1000), index, np.uint8)).save(path)
    label_images(trained, paths[:1], wishes)  # what is loaded once
    tracemalloc.start()
    found = label_images(trained, paths, wishes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 24
    assert peak < 3_000_000  # of 16,800,000 in all


def test_several_labels_are_written_and_not_sorted(trained, scans, tmp_path):
    several = Classifier(trained.engine, trained.card.model_copy(update={"multilabel": True}))
    found = label_images(several, scans[:2], Wishes(output=tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().startswith("image,labels,probability_0,probability_1,")
    assert all(prediction.labels is not None for prediction in found)
    with pytest.raises(ConfigError, match=r"^--sort puts each image into one folder, and this model may give"):
        label_images(several, scans, Wishes(sort=tmp_path))
