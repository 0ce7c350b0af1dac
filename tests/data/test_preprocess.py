import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from timm.data import create_transform
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms import functional as F

from vitrail.data.images import read_image
from vitrail.data.preprocess import (
    Placement,
    Preprocess,
    placement,
    prepare,
    prepare_many,
    read_for,
    read_prepared,
    visible,
)
from vitrail.errors import ConfigError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def settings(rows: int, columns: int, channels: int = 3, fit="pad", crop_rate=1.0) -> Preprocess:
    return Preprocess(image_size=(rows, columns), channels=channels, fit=fit, crop_rate=crop_rate)


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


@pytest.mark.parametrize("size", [(200, 300), (301, 200), (64, 64), (500, 37)])
@pytest.mark.parametrize("crop_rate", [0.8, 0.875, 0.9, 0.95, 0.965, 1.0])
@pytest.mark.parametrize(("fit", "mode"), [("crop", "center"), ("squash", "squash"), ("pad", "border")])
@pytest.mark.parametrize("side", [32, 61])
def test_a_part_of_each_side_is_kept_as_timm_keeps_it(fit, mode, crop_rate, size, side):
    image = Image.fromarray(noise(size[1], size[0], 3))
    black = {"mean": (0.0, 0.0, 0.0), "normalize": False}  # which timm pads with
    transform = create_transform(side, interpolation="bicubic", crop_pct=crop_rate, crop_mode=mode, **black)
    theirs = transform(image)
    assert isinstance(theirs, torch.Tensor)
    ours = prepare(image, settings(side, side, fit=fit, crop_rate=crop_rate))
    np.testing.assert_array_equal(ours, theirs.permute(1, 2, 0).numpy())


def test_the_middle_of_an_image_that_has_the_size_is_enlarged():
    image = Image.fromarray(noise(28, 28, 3))
    wanted = settings(28, 28, fit="crop", crop_rate=0.875)
    expected = image.resize((32, 32), Image.Resampling.BICUBIC).crop((2, 2, 30, 30))
    np.testing.assert_array_equal(prepare(image, wanted), np.asarray(expected))
    np.testing.assert_array_equal(prepare_many(noise(28, 28, 3)[None], wanted)[0], np.asarray(expected))


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
)
def test_native_is_pad_with_a_channel_that_says_what_is_image(width, height, rows, columns, channels):
    image = Image.new("RGB", (width, height), "white")
    padded = prepare(image, settings(rows, columns, channels))
    result = prepare(image, settings(rows, columns, channels, "native"))
    assert result.shape == settings(rows, columns, channels, "native").shape == (rows, columns, channels + 1)
    np.testing.assert_array_equal(result[..., :-1], padded)
    np.testing.assert_array_equal(result[..., -1], padded[..., 0])  # white where there is image


def test_native_arrays_that_have_the_size_are_image_everywhere():
    images = noise(2, 4, 5, 3)
    result = prepare_many(images, settings(4, 5, fit="native"))
    np.testing.assert_array_equal(result[..., :3], images)
    assert (result[..., 3] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_padding_that_is_left_out_is_seen_as_grey(channels):
    image = Image.new("RGB", (8, 4), "white")
    seen = visible(prepare(image, settings(8, 8, channels, "native"))[None])
    assert seen.shape == (1, 8, 8, channels)
    assert seen.dtype == np.uint8
    assert (seen[0, 2:6] == 255).all()
    assert (seen[0, [0, 1, 6, 7]] == 128).all()
    padded = prepare(image, settings(8, 8, channels))[None]
    assert visible(padded) is padded


@given(
    shape=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    size=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    fit=st.sampled_from(["pad", "crop", "squash", "native"]),
    crop_rate=st.sampled_from([1.0, 0.875, 0.8]),
    place=st.tuples(st.floats(0.15, 0.85), st.floats(0.15, 0.85)),
)
def test_a_mark_lies_where_the_placement_says(shape, size, fit, crop_rate, place):
    wanted = settings(*size, channels=1, fit=fit, crop_rate=crop_rate)
    edges = placement(shape, wanted)
    # A bar across the original, along each axis in turn, is to be found about its middle in the model's pixels.
    for axis, (first, last) in enumerate([(edges.top, edges.bottom), (edges.left, edges.right)]):
        length = max(3, round(2 * shape[axis] * (last - first) / size[axis]))  # a model's pixel or two
        start = min(round(place[axis] * shape[axis]), shape[axis] - length)
        plain = np.full(shape, 80, np.uint8)
        marked = plain.copy()
        marked[(slice(start, start + length), slice(None))[:: 1 if axis == 0 else -1]] = 180
        expected = ((start + length / 2) / shape[axis] - first) / (last - first) * size[axis]
        if not 4 < expected < size[axis] - 4:
            continue  # cut in two, or cut off
        change = prepare(Image.fromarray(marked), wanted)[..., 0].astype(float)
        change -= prepare(Image.fromarray(plain), wanted)[..., 0]
        weight = change.sum(axis=1 - axis)
        assert weight @ (np.arange(size[axis]) + 0.5) / weight.sum() == pytest.approx(expected, abs=0.15)


def test_what_is_cropped_or_padded_in_numbers():
    assert placement((10, 20), settings(8, 8, fit="squash")) == Placement(0, 0, 1, 1)
    assert placement((10, 20), settings(8, 8, fit="crop")) == Placement(0.25, 0, 0.75, 1)
    assert placement((10, 20), settings(8, 8, fit="pad")) == Placement(0, -0.5, 1, 1.5)
    assert placement((10, 20), settings(8, 8, fit="native")) == Placement(0, -0.5, 1, 1.5)
    assert placement((20, 10), settings(8, 8, fit="crop", crop_rate=0.5)) == Placement(0.25, 0.375, 0.75, 0.625)
    assert placement((8, 8), settings(8, 8, fit="pad")) == Placement(0, 0, 1, 1)


def jpeg(rows: int, columns: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(noise(6, 8, 3)).resize((columns, rows), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


@pytest.mark.parametrize("side", [32, 410, 600])
@pytest.mark.parametrize("shape", [(1024, 1100), (700, 520), (2100, 1030)])
def test_content_is_the_same_for_models_of_every_size(side, shape):
    data = jpeg(*shape)
    wanted = settings(side, side, fit="crop")
    reading = read_for(data, wanted)
    np.testing.assert_array_equal(np.asarray(reading.original), np.asarray(read_image(data)))
    np.testing.assert_array_equal(reading.pixels, read_prepared(data, wanted))
    enough = prepare(read_image(data, at_least=None), wanted).astype(float)
    assert np.abs(reading.pixels - enough).mean() < 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (settings(224, 224), 512),
        (settings(448, 448), 560),
        (settings(448, 448, fit="crop", crop_rate=0.875), 640),
        (settings(2048, 256), 512),
        (settings(2048, 256, fit="crop"), 2560),
    ],
)
def test_models_of_more_pixels_are_given_more(wanted, expected):
    assert wanted.least_side == expected


def test_settings_of_earlier_runs_keep_the_whole():
    old = Preprocess.model_validate({"image_size": (4, 6), "channels": 1, "fit": "crop"})
    assert old == settings(4, 6, 1, "crop")
    assert old.crop_rate == 1


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


@pytest.mark.parametrize(
    "wrong", [{"image_size": (0, 4)}, {"fit": "auto"}, {"size": 3}, {"image_size": 4}, {"crop_rate": 0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Preprocess(**{"image_size": (4, 4), "channels": 1, "fit": "pad", **wrong})


def test_settings_survive_json():
    wanted = settings(4, 6, 1, "crop")
    assert Preprocess.model_validate_json(wanted.model_dump_json()) == wanted


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((341, 256), (256, 256)), ((1024, 768), (280, 280)), ((200, 500), (224, 224)), ((250, 280), (250, 250))],
)
def test_crops_are_cut_from_as_large_an_image_as_there_is(shape, expected):
    preprocess = Preprocess(image_size=(224, 224), channels=3, fit="crop", crop_rate=0.875)
    canvas = preprocess.canvas(shape)
    assert canvas == Preprocess(image_size=expected, channels=3, fit="crop")
