"""The images that a model is evaluated on; those of runs are tested through the command line, too."""

from pathlib import Path

import pytest

from vitrail import api
from vitrail.checkpoint import read_card
from vitrail.data.sources import open_dataset
from vitrail.data.splits import read_splits
from vitrail.errors import ConfigError
from vitrail.evaluation_data import evaluation_images, own_images, published_images
from vitrail.preparation import open_data_of
from vitrail.runs import RunDirectory


def test_labels_are_in_the_models_classes(digits_run: Path, write_idx) -> None:
    card = read_card(digits_run)
    card = card.model_copy(update={"classes": ("2", "x", "0", "1")})
    data = str(write_idx(digits_run.parent / "bars"))
    dataset, images = published_images(card, "hf:owner/bars", (data,), "test", None)
    assert dataset.classes == ("0", "1", "2")
    assert images.pixels.shape == (30, 8, 8, 1)
    assert images.labels[:4].tolist() == [2, 3, 0, 2]
    assert len(published_images(card, "it", (data,), "train", None)[1]) == 60


def test_data_must_be_named_and_known(digits_run: Path, write_idx) -> None:
    card = read_card(digits_run)
    with pytest.raises(
        ConfigError, match=r"^hf:owner/bars has no data of its own here; name some: vitrail evaluate hf:"
    ):
        published_images(card, "hf:owner/bars", (), "test", None)
    few = card.model_copy(update={"classes": ("0", "x")})
    data = str(write_idx(digits_run.parent / "bars"))
    with pytest.raises(ConfigError, match=r"that the model does not know, 1, 2; it knows 0, x"):
        published_images(few, "it", (data,), "test", None)


@pytest.mark.parametrize("data", [(), ("digits",)])
def test_corrections_leave_a_runs_splits_what_they_were(digits_run: Path, tmp_path: Path, data) -> None:
    run = RunDirectory(digits_run)
    before = read_splits(run.splits_path).images(open_dataset("digits"), "test")
    corrections = tmp_path / "fix.csv"
    corrections.write_text(f"{before.hashes[7]},drop\n")
    _, images = evaluation_images(run, data, "test", corrections)
    assert len(before) == 359
    assert images.hashes == before.hashes[:7] + before.hashes[8:]


def test_corrections_of_a_run_with_corrections_of_its_own(tiny, quick, tmp_path: Path, write_idx) -> None:
    data = str(write_idx(tmp_path / "bars"))
    hashes = open_dataset(data).read("train").hashes
    for name, places in {"old": (0, 1, 2, 3), "new": (10,)}.items():
        lines = "".join(f"{hashes[place]},drop\n" for place in places)
        (tmp_path / f"{name}.csv").write_text(lines)
    run = api.train(data, epochs=1, settings=tiny, corrections=tmp_path / "old.csv", out=tmp_path / "run")
    for split in ("train", "validation"):
        own = own_images(run.directory, open_data_of(run.directory), split, read_card(run.path).preprocess)
        _, images = evaluation_images(run.directory, (), split, tmp_path / "new.csv")
        assert {*images.hashes} == {*own.hashes} - {hashes[10]}
