import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms import functional as F

from vitrail.data.preprocess import Preprocess, prepare, prepare_many
from vitrail.errors import ConfigError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def settings(rows: int, columns: int, channels: int = 3, fit="pad") -> Preprocess:
    return Preprocess(image_size=(rows, columns), channels=channels, fit=fit)


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 3)])
def test_an_image_of_the_size_is_not_touched(fit, shape):
    array = noise(*shape)
    channels = 1 if len(shape) == 2 else 3
    result = prepare(Image.fromarray(array), settings(8, 12, channels, fit))
    np.testing.assert_array_equal(result, array.reshape(8, 12, channels))


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 50), (50, 1), (3, 3), (12, 8), (40, 17)])
def test_every_image_gets_the_size(fit, channels, size):
    result = prepare(Image.new("RGB", size, "white"), settings(8, 12, channels, fit))
    assert result.shape == (8, 12, channels)
    assert result.dtype == np.uint8
    if fit != "pad":
        assert result.min() == 255


def test_squash_is_pillows_bicubic():
    image = Image.fromarray(noise(30, 20, 3))
    expected = np.asarray(image.resize((12, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(prepare(image, settings(8, 12, fit="squash")), expected)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (31, 17), (7, 5), (64, 64), (11, 40)])
def test_crop_equals_torchvision(size):
    image = Image.fromarray(noise(size[1], size[0], 3))
    theirs = CenterCrop(16)(Resize(16, InterpolationMode.BICUBIC)(image))
    np.testing.assert_array_equal(prepare(image, settings(16, 16, fit="crop")), np.asarray(theirs))


def test_crop_of_another_shape_cuts_the_longer_side_evenly():
    array = np.zeros((4, 12), np.uint8)
    array[:, 4:8] = 255
    assert prepare(Image.fromarray(array), settings(4, 4, 1, "crop")).min() == 255
    assert prepare(Image.fromarray(array.T), settings(4, 4, 1, "crop")).min() == 255


@pytest.mark.parametrize("turned", [False, True])
def test_pad_centres_the_whole_image_on_black(turned):
    array = np.full((4, 10), 200, np.uint8)
    result = prepare(Image.fromarray(array.T if turned else array), settings(20, 20, 1, "pad"))[..., 0]
    expected = np.zeros((20, 20), np.uint8)
    expected[6:14] = 200
    np.testing.assert_array_equal(result, expected.T if turned else expected)


def test_channels_are_converted_by_luma_and_repetition():
    colour = Image.fromarray(np.array([[[200, 100, 50]]], np.uint8))
    assert prepare(colour, settings(1, 1, 1)).tolist() == [[[round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]]]
    assert prepare(Image.new("L", (1, 1), 77), settings(1, 1, 3)).tolist() == [[[77, 77, 77]]]
    grey = noise(5, 5, 3)
    expected = np.asarray(F.to_grayscale(Image.fromarray(grey)))[..., None]
    np.testing.assert_array_equal(prepare(Image.fromarray(grey), settings(5, 5, 1)), expected)


def test_images_of_other_modes_follow_the_rule_for_files():
    assert prepare(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), settings(2, 2)).min() == 255


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels):
    with pytest.raises(ConfigError, match=rf"channels={channels} is not possible; use 1 \(grey\) or 3 \(RGB\)"):
        prepare(Image.new("RGB", (2, 2)), settings(2, 2, channels))
    with pytest.raises(ConfigError, match=f"channels={channels}"):
        prepare_many(np.zeros((2, 2, 2, 3), np.uint8), settings(2, 2, channels))


def test_many_images_of_the_size_are_not_copied():
    images = noise(3, 4, 5, 3)
    assert prepare_many(images, settings(4, 5)) is images


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("source_channels", [1, 3])
def test_many_images_equal_one_by_one(channels, source_channels):
    images = noise(3, 9, 5, source_channels)
    wanted = settings(6, 6, channels, "crop")
    result = prepare_many(images, wanted)
    assert result.shape == (3, 6, 6, channels)
    for image, prepared in zip(images, result, strict=True):
        one = Image.fromarray(image[..., 0] if source_channels == 1 else image)
        np.testing.assert_array_equal(prepared, prepare(one, wanted))


def test_prepared_arrays_can_be_written_to():
    assert prepare(Image.new("L", (4, 4)), settings(4, 4, 1)).flags.writeable


@pytest.mark.parametrize("wrong", [{"image_size": (0, 4)}, {"fit": "stretch"}, {"size": 3}, {"image_size": 4}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Preprocess(**{"image_size": (4, 4), "channels": 1, "fit": "pad", **wrong})


def test_settings_survive_json():
    wanted = settings(4, 6, 1, "crop")
    assert Preprocess.model_validate_json(wanted.model_dump_json()) == wanted
