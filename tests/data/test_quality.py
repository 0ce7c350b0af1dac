import numpy as np
import pytest
from photographs import photographs
from PIL import Image, ImageFilter

from vitrail.data.preprocess import Preprocess
from vitrail.data.quality import join_measures, measure, quality_findings

SIZE = 64
CROP = Preprocess(image_size=(SIZE, SIZE), channels=3, fit="crop")
PAD = CROP.model_copy(update={"fit": "pad"})
PHOTOGRAPHS = photographs(40, SIZE)


def found_in(images, preprocess=CROP):
    places = [("all", str(index)) for index in range(len(images))]
    return [(one.kind, int(one.images[0])) for one in quality_findings(measure(images, preprocess), places)]


def planted():
    images = PHOTOGRAPHS.copy()
    noise = np.random.default_rng(0).integers(-2, 3, images.shape[1:])
    images[3] = 200 + noise  # empty, though not quite
    images[7] = PHOTOGRAPHS[7] // 10
    images[12] = 240 + PHOTOGRAPHS[12] // 17
    images[20] = np.asarray(Image.fromarray(images[20]).filter(ImageFilter.GaussianBlur(5)))
    images[21] = 0
    return images


EXPECTED = [("empty", 3), ("empty", 21), ("dark", 7), ("bright", 12), ("blurred", 20)]


def test_planted_faults_are_found_and_nothing_else():
    assert found_in(planted()) == EXPECTED
    assert found_in(PHOTOGRAPHS) == []


def test_padding_does_not_count():
    padded = np.zeros((40, 3 * SIZE, SIZE, 3), np.uint8)
    padded[:, SIZE : 2 * SIZE] = planted()
    assert found_in(padded, PAD) == EXPECTED
    mask = np.zeros((40, 3 * SIZE, SIZE, 1), np.uint8)
    mask[:, SIZE : 2 * SIZE] = 255
    native = CROP.model_copy(update={"fit": "native"})
    assert found_in(np.concatenate([padded, mask], axis=3), native) == EXPECTED


def test_blocks_make_no_difference():
    images = planted()
    joined = join_measures([measure(images[:9], CROP), measure(images[9:], CROP)])
    whole = measure(images, CROP)
    for name in ("spread", "low", "high", "sharpness"):
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name))


def test_a_sentence_says_what_was_measured():
    said = [one.sentence for one in quality_findings(measure(planted(), CROP), [("all", "a.jpg")] * 40)]
    assert said[0] == "a.jpg is nearly empty: its pixels differ by 1.0 of 255"
    assert said[2].startswith("a.jpg is very dark: 98 % of it is below 2")
    assert said[4].startswith("a.jpg is blurred: it has ")


def test_saturated_colours_and_digits_are_neither_dark_nor_bright(digit_images):
    blue = PHOTOGRAPHS.copy()
    blue[:, :, :, :2] //= 20
    assert found_in(blue) == []
    digits = (digit_images.astype(int) * 255 // 16).astype(np.uint8)[..., None]
    digits = np.pad(digits, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for preprocess in (PAD, CROP):
        assert found_in(digits, preprocess) == []
        assert found_in(255 - digits, preprocess) == []
        assert found_in(digits // 128 * 255, preprocess) == []


def test_smooth_sets_and_small_ones_are_not_called_blurred():
    smooth = np.stack([np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(5))) for one in PHOTOGRAPHS])
    assert found_in(smooth) == []
    assert found_in(np.concatenate([PHOTOGRAPHS[:20], smooth[:5]])) == []  # too few to compare with
    assert np.isnan(measure(smooth[:, ::2, ::2], CROP).sharpness).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "clothing", "cifar10"])
def test_real_sets_are_nearly_free_of_faults(data_folder, name):
    from vitrail.data.sources import open_dataset

    dataset = open_dataset(data_folder(name))
    rows, columns, channels = dataset.shape if name != "clothing" else (64, 64, 3)
    preprocess = Preprocess(image_size=(rows, columns), channels=channels, fit="crop")
    found = [
        one
        for split in dataset.published
        for images in [dataset.prepared(split, preprocess)]
        for one in quality_findings(
            join_measures([measure(block, preprocess) for block in images.blocks()]),
            [(split, own) for own in images.names],
        )
    ]
    assert found == []
