"""Weights on their way into a training or a model: what is kept, what is new, what is refused."""

from pathlib import Path

import pytest
import torch

import vitrail
from vitrail.config import RunConfig
from vitrail.errors import CheckpointError, ConfigError
from vitrail.initialization import begun_from, initial_weights, reopened
from vitrail.models import model_config
from vitrail.pretrained import open_pretrained

DIGITS = tuple(map(str, range(10)))


def config(**changes: object) -> RunConfig:
    model = model_config("vit_micro_conv4_8", embed_dim=32, depth=1, **changes)
    return RunConfig(recipe="digits", model_name="vit_micro_conv4_8", model=model)


def test_a_run_begins_as_its_weights_are_used_to(digits_run: Path) -> None:
    pretrained = open_pretrained(str(digits_run))
    begun = begun_from(config(), pretrained, "run", model=None, fit=True)
    assert begun.model == pretrained.config
    assert (begun.init, begun.data.fit, begun.model_name) == ("run", "pad", "vit_micro_conv4_8")
    named = begun_from(config(image_size=16), pretrained, "run", model="vit_micro_conv4_8", fit=False)
    assert (named.model.image_size, named.model.mean) == ((16, 16), pretrained.config.mean)


def test_the_head_is_kept_for_the_same_classes_alone(digits_run: Path) -> None:
    pretrained = open_pretrained(str(digits_run))
    same = initial_weights(pretrained, config(), DIGITS)
    assert same.new == ()
    assert same.weights["head.weight"] is pretrained.weights["head.weight"]
    for classes, model in ((DIGITS[::-1], config()), (DIGITS[:3], config(num_classes=3))):
        other = initial_weights(pretrained, model, classes)
        assert "head.weight" not in other.weights
        assert "head." in other.new
    assert same.origin == {"weights": digits_run.name, "digest": pretrained.digest}


def test_weights_of_another_model_are_refused(digits_run: Path) -> None:
    deeper = model_config("vit_micro_conv4_8", embed_dim=32, depth=2)
    other = config().model_copy(update={"model": deeper})
    with pytest.raises(CheckpointError, match="depth 1 of the weights is not the model's 2"):
        initial_weights(open_pretrained(str(digits_run)), other, DIGITS)


def test_a_run_begins_again_with_the_same_weights_alone(digits_run: Path) -> None:
    begun = config().model_copy(update={"init": str(digits_run)})
    digest = open_pretrained(str(digits_run)).digest
    assert reopened(begun, DIGITS, {"digest": digest}, offline=True).origin["digest"] == digest
    assert reopened(begun, DIGITS, None, offline=True).origin["digest"] == digest
    with pytest.raises(
        ConfigError, match="are not those that the run began with; bring these back, or start a new run"
    ):
        reopened(begun, DIGITS, {"digest": "0"}, offline=True)


def test_create_model_takes_weights(digits_run: Path) -> None:
    sizes = {"embed_dim": 32, "depth": 1}
    model = vitrail.create_model("vit_micro_conv4_8", init=str(digits_run), **sizes).eval()
    classifier = vitrail.load(digits_run, "cpu")
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(model(images), classifier.engine.model(images))
    torch.manual_seed(0)
    new = vitrail.create_model("vit_micro_conv4_8", init=str(digits_run), num_classes=3, in_chans=3, **sizes).eval()
    assert new(images.expand(-1, 3, -1, -1)).shape == (2, 3)
    with pytest.raises(CheckpointError, match="embed_dim 32 of the weights is not the model's 64"):
        vitrail.create_model("vit_micro_conv4_8", init=str(digits_run))
