"""Weights on their way into a training or a model: what is kept, what is new, what is refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._hub import save_for_hf

import vitrail
from vitrail.config import RunConfig, config_to_json
from vitrail.data.dataset import Dataset, ImageSet, number_names
from vitrail.errors import CheckpointError, ConfigError
from vitrail.initialization import begun_from, initial_model, initial_weights, reopened
from vitrail.models import model_config
from vitrail.models.adaptation import adapt_scaling
from vitrail.preparation import Request, prepare_new
from vitrail.pretrained import open_pretrained
from vitrail.runs import RunDirectory

DIGITS = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def photo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a model of three classes of 16x16 images, scaled as ImageNet's are, as timm writes it."""
    folder = tmp_path_factory.mktemp("photo_model")
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 1}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    statistics = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    written = {"label_names": ["a", "b", "c"], "pretrained_cfg": statistics | {"input_size": (3, 16, 16)}}
    save_for_hf(model, str(folder), model_config=written, safe_serialization=True)
    return folder


def config(**changes: object) -> RunConfig:
    model = model_config("vit_micro_conv4_8", embed_dim=32, depth=1, **changes)
    return RunConfig(recipe="digits", model_name="vit_micro_conv4_8", model=model)


def test_a_run_begins_as_its_weights_are_used_to(digits_run: Path) -> None:
    pretrained = open_pretrained(str(digits_run))
    begun = begun_from(config(), pretrained, "run", model=None, fit=True)
    unscaled = {"mean": None, "std": None}  # until the data's channels are known
    assert begun.model == pretrained.config.model_copy(update=unscaled)
    assert (begun.init, begun.data.fit, begun.model_name) == ("run", "pad", "vit_micro_conv4_8")
    named = begun_from(config(image_size=16), pretrained, "run", model="vit_micro_conv4_8", fit=False)
    assert (named.model_name, named.model.image_size) == ("vit_micro_conv4_8", (16, 16))


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


SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1}


def spots(in_chans: int, classes: tuple[str, ...]) -> Dataset:
    def read(split: str) -> ImageSet:
        numbers = np.random.default_rng(len(split))
        pixels = numbers.integers(0, 256, (30, 16, 16, in_chans), dtype=np.uint8)
        return ImageSet(pixels, np.arange(30) % len(classes), number_names(split, 30))

    return Dataset("spots", classes, ("train", "test"), read)


@pytest.mark.parametrize("in_chans", [1, 3, 4])
def test_a_model_for_other_channels_answers_to_grey_images_as_its_weights_did(photo_model: Path, in_chans: int) -> None:
    settings = {**SIZES, "num_heads": 1, "in_chans": in_chans}
    model = vitrail.create_model("vit_tiny_patch16_224", init=str(photo_model), **settings).eval()
    own = open_pretrained(str(photo_model))
    assert own.config.mean == IMAGENET_DEFAULT_MEAN
    assert model.config.mean == adapt_scaling(own.config, in_chans)["mean"]
    grey = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    if in_chans != 4:  # where channels weigh differently
        torch.testing.assert_close(model(grey.expand(-1, in_chans, -1, -1)), own.module()(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("named", [None, "vit_tiny_patch16_224"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_training_begins_with_the_model_that_create_model_makes(
    photo_model: Path, in_chans: int, named: str | None
) -> None:
    settings = {**SIZES, "num_heads": 1}
    model = vitrail.create_model("vit_tiny_patch16_224", init=str(photo_model), in_chans=in_chans, **settings)
    asked = {f"model.{name}": value for name, value in settings.items()} if named else {}
    request = Request(init=str(photo_model), model=named, settings=asked)
    begun, content = prepare_new(spots(in_chans, ("a", "b", "c")), request)
    assert begun.model.scaling() == model.config.scaling()
    assert content.initial is not None
    assert content.initial.weights.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, content.initial.weights[name]) for name, tensor in model.state_dict().items())


def test_statistics_that_are_asked_for_are_not_those_of_the_weights(photo_model: Path) -> None:
    asked = {"model.mean": "0.3,0.4,0.5", "model.in_chans": "3"}
    begun, _ = prepare_new(spots(1, ("a", "b")), Request(init=str(photo_model), settings=asked))
    assert (begun.model.mean, begun.model.std) == ((0.3, 0.4, 0.5), IMAGENET_DEFAULT_STD)
    grey, _ = prepare_new(spots(3, ("a", "b")), Request(init=str(photo_model), settings={"model.in_chans": 1}))
    assert grey.model.mean == adapt_scaling(open_pretrained(str(photo_model)).config, 1)["mean"]


@pytest.mark.parametrize("in_chans", [1, 3])
def test_weights_that_do_not_tell_their_heads_are_those_of_the_named_model_again(
    photo_model: Path, tmp_path: Path, in_chans: int
) -> None:
    bare = tmp_path / "bare.safetensors"
    shutil.copy(photo_model / "model.safetensors", bare)
    with pytest.raises(CheckpointError, match="do not tell how many attention heads"):
        open_pretrained(str(bare))
    data = spots(in_chans, ("0", "1", "2"))
    settings = {f"model.{name}": value for name, value in {**SIZES, "num_heads": 3}.items()}
    begun, content = prepare_new(data, Request(init=str(bare), model="vit_tiny_patch16_224", settings=settings))
    assert content.initial is not None
    again = reopened(begun, data.classes, content.initial.origin, offline=True)
    assert again.weights.keys() == content.initial.weights.keys()
    assert all(torch.equal(tensor, content.initial.weights[name]) for name, tensor in again.weights.items())
    run = RunDirectory(tmp_path / "run")
    run.create(config_to_json(begun), content.splits.to_json())
    repeated, its = prepare_new(data, Request(data=("spots",), like=run))
    assert repeated == begun
    assert its.initial is not None
    assert its.initial.origin == content.initial.origin


@pytest.mark.parametrize("name", ["resnet18_32", "timm:test_resnet"])
def test_weights_of_a_cnn_are_those_of_the_model_that_is_named(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    net: Any = vitrail.create_model(name, num_classes=7).net
    torch.save(net.state_dict(), tmp_path / "cnn.pth")
    begun: Any = initial_model(name, {"num_classes": 7}, str(tmp_path / "cnn.pth"), offline=True)
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(begun.net.state_dict()[key], tensor)
    other: Any = initial_model(name, {"num_classes": 3}, str(tmp_path / "cnn.pth"), offline=True)
    assert other(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_weights_of_a_vit_are_none_of_a_cnns(tmp_path: Path) -> None:
    vit = vitrail.create_model("s5_vit")
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=r"^The weights lack net\.conv1\.weight"):
        initial_model("resnet18_32", {"num_classes": 10, "in_chans": 1}, str(tmp_path / "vit.pth"), offline=True)


def test_heads_that_are_taken_for_granted_are_said(tmp_path: Path) -> None:
    vit = vitrail.create_model("s5_vit", embed_dim=128, num_heads=4)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    assert "2 are taken, of 64 channels each" in open_pretrained(str(tmp_path / "vit.pth")).notes[0]
