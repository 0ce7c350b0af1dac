import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.checkpoint import read_card
from vitrail.config import RunConfig, with_settings
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.preprocess import prepare_many
from vitrail.data.sources import open_dataset
from vitrail.errors import ConfigError
from vitrail.fitting import fit_flips, fit_to_pixels, fit_to_shapes
from vitrail.models import model_config
from vitrail.preparation import Request, prepare_new, prepare_resumed, preprocess_of
from vitrail.recipes import recipe_function
from vitrail.runs import RunDirectory

SIZES = [(40, 20), (20, 40), (30, 30), (24, 36)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes of pictures of several shapes, 16 each."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 200)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for index in range(16):
            pixels = rng.integers(level - 30, level + 30, (*SIZES[index % 4], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{index}.png")
    return tmp_path / "pictures"


def of_shapes(*shapes: tuple[int, int]) -> Dataset:
    return Dataset("set", ("a", "b"), ("all",), None, measure=lambda: (1, 1, 3), shapes=lambda: np.array(shapes))


def config(**settings: object) -> RunConfig:
    return with_settings(recipe_function("photos")(), settings)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [([(64, 64), (320, 321)], "squash"), ([(300, 310)], "crop"), ([(341, 256), (256, 341)], "pad")],
)
def test_the_fit_follows_from_the_shapes_and_is_said(
    shapes: list[tuple[int, int]], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fitted = fit_to_shapes(config(), of_shapes(*shapes), {})
    assert fitted == config(**{"data.fit": expected})
    assert [record.message.count(f"data.fit={expected}") for record in caplog.records] == [1]


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_a_fit_that_is_named_stays(fit: str, caplog: pytest.LogCaptureFixture) -> None:
    named = config(**{"data.fit": fit})
    with caplog.at_level(logging.INFO):
        assert fit_to_shapes(named, of_shapes((64, 64)), {}) == named
    assert caplog.records == []


def test_a_part_to_keep_means_cropping() -> None:
    fitted = fit_to_shapes(config(**{"data.crop_rate": 0.9}), of_shapes((64, 64)), {})
    assert (fitted.data.fit, preprocess_of(fitted).crop_rate) == ("crop", 0.9)


def test_a_vit_is_told_of_padding_with_native_alone() -> None:
    native = fit_to_shapes(config(**{"data.fit": "native"}), of_shapes((64, 64)), {})
    assert native.model.padding_mask
    assert not fit_to_shapes(with_settings(native, {"data.fit": "pad"}), of_shapes((64, 64)), {}).model.padding_mask


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data.fit": "native", "data.crop_rate": 0.9},
            r"^data\.crop_rate=0\.9 cuts images off, and data\.fit=native keeps them whole; leave one out$",
        ),
        (
            {"data.fit": "pad", "model.padding_mask": True},
            r"^model\.padding_mask follows from the fit; ask for data\.fit=native, or for another, alone$",
        ),
        (
            {"data.fit": "native", "model.patch_drop_rate": 0.5},
            r"^model\.padding_mask=true and model\.patch_drop_rate=0\.5 do not go together; use ",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_to_shapes(config(**settings), of_shapes((64, 64)), settings)


@pytest.mark.parametrize("name", ["resnet18_32", "cct_2_3x2_32", "attention2d_micro_conv4_32", "timm:resnet10t"])
def test_models_that_see_every_pixel_refuse_native(name: str) -> None:
    of_model = config().model_copy(update={"model_name": name, "model": model_config(name)})
    message = (
        f"^data\\.fit=native leaves padding out of attention, which {name} cannot; use a ViT, such as --model vit_"
    )
    with pytest.raises(ConfigError, match=message):
        fit_to_shapes(with_settings(of_model, {"data.fit": "native"}), of_shapes((64, 64)), {})


def test_statistics_are_of_images_without_their_padding() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(50, 200, (6, 20, 10, 3), dtype=np.uint8)
    native = fit_to_shapes(config(**{"data.fit": "native", "model.image_size": 20}), of_shapes((20, 10)), {})
    prepared = prepare_many(pixels, preprocess_of(native))
    images = ImageSet(prepared, np.zeros(6, np.int64), tuple("abcdef"))
    fitted = fit_to_pixels(native, images)
    for channel in range(3):
        assert fitted.model.mean is not None
        assert fitted.model.std is not None
        assert fitted.model.mean[channel] == pytest.approx(pixels[..., channel].mean() / 255, abs=1e-6)
        assert fitted.model.std[channel] == pytest.approx(pixels[..., channel].std() / 255, abs=1e-6)
    padded = prepared[..., :3]
    with_padding = fit_to_pixels(with_settings(native, {"data.fit": "pad"}), ImageSet(padded, *astuple(images)))
    assert with_padding.model.mean is not None
    assert with_padding.model.mean[0] == pytest.approx(padded[..., 0].mean() / 255, abs=1e-6)


def astuple(images: ImageSet) -> tuple[np.ndarray, tuple[str, ...]]:
    return images.labels, images.names


def test_what_was_chosen_is_kept_by_the_run(pictures: Path, tmp_path: Path) -> None:
    request = Request((str(pictures),), settings={"data.fit": "auto", "model.image_size": "32"})
    chosen, content = prepare_new(open_dataset(str(pictures)), request)
    assert chosen.data.fit == "pad"
    run = RunDirectory(tmp_path / "run")
    run.create(chosen.model_dump_json(), content.splits.to_json())
    assert prepare_resumed(run, request)[0] == chosen
    asked_again = Request((str(pictures),), settings={"data.fit": "crop"})
    with pytest.raises(ConfigError, match=r"has other settings \(data\.fit: pad -> crop\)"):
        prepare_resumed(run, asked_again)
    repeated, _ = prepare_new(open_dataset(str(pictures)), Request((str(pictures),), like=run))
    assert repeated.data.fit == "pad"


def test_what_is_begun_from_says_how_images_fit(pictures: Path, digits_run: Path) -> None:
    card = read_card(digits_run)
    source = str(pictures)
    begun, _ = prepare_new(open_dataset(source), Request((source,), init=str(digits_run)))
    assert begun.data.fit == card.preprocess.fit == "pad"
    asked, _ = prepare_new(open_dataset(source), Request((source,), init=str(digits_run), settings={"data.fit": "pad"}))
    assert asked.data.fit == "pad"
    by_shapes, _ = prepare_new(
        open_dataset(source), Request((source,), init=str(digits_run), settings={"data.fit": "auto"})
    )
    assert by_shapes.data.fit == "pad"


def test_another_fit_than_the_recipes_keeps_the_whole() -> None:
    rng = np.random.default_rng(0)

    def read(split: str) -> ImageSet:
        pixels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        return ImageSet(pixels, np.arange(40) % 2, tuple(map(str, range(40))))

    data = Dataset("set", ("a", "b"), ("train",), read)
    settings = {"model.image_size": 64}
    kept, _ = prepare_new(data, Request(("set",), recipe="s4_alexnet_cifar10", settings=settings))
    whole, _ = prepare_new(
        data, Request(("set",), recipe="s4_alexnet_cifar10", settings={**settings, "data.fit": "pad"})
    )
    assert (kept.data.crop_rate, whole.data.crop_rate) == (0.875, 1.0)


# Mirrored images


@pytest.mark.parametrize(
    ("classes", "shape", "chosen", "rate", "said"),
    [
        ("0123456789", (32, 32, 3), False, 0, "look like digits or letters, so images are not mirrored; if they are"),
        ("0123456789", (90, 90, 1), False, 0, "--set data.augment.flip_rate=0.5"),
        ("0123456789", (90, 120, 3), False, 0.5, ""),
        ("abc", (28, 28, 1), True, 0.5, "data.augment.flip_rate=0.5 mirrors digits or letters"),
        (["cat", "dog"], (28, 28, 1), False, 0.5, ""),
    ],
)
def test_digits_and_letters_are_not_mirrored_unless_asked_for(classes, shape, chosen, rate, said, caplog):
    caplog.set_level(logging.INFO)
    config = with_settings(recipe_function("photos")(), {"data.augment.flip_rate": 0.5})
    dataset = Dataset("set", tuple(classes), ("all",), None, measure=lambda: shape)
    fitted = fit_flips(config, dataset, chosen)
    assert fitted.data.augment.flip_rate == rate
    assert fitted == with_settings(config, {"data.augment.flip_rate": rate})
    assert caplog.text.count("mirror") == (1 if said else 0)
    assert said in caplog.text


def test_a_recipe_that_mirrors_does_not_on_digits(caplog):
    caplog.set_level(logging.INFO)
    dataset = open_dataset("digits")
    config, _ = prepare_new(dataset, Request(data=("digits",), recipe="cct_cifar10"))
    assert recipe_function("cct_cifar10")().data.augment.flip_rate > 0
    assert config.data.augment.flip_rate == 0
    config, _ = prepare_new(
        dataset, Request(data=("digits",), recipe="cct_cifar10", settings={"data.augment.flip_rate": 0.3})
    )
    assert config.data.augment.flip_rate == 0.3
