"""The images that a published model is evaluated on; those of runs are tested through the command line."""

from pathlib import Path

import pytest

from vitrail.checkpoint import read_card
from vitrail.errors import ConfigError
from vitrail.evaluation_data import published_images


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
