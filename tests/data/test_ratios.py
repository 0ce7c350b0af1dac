import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.ratios import choose_fit

SHAPES = st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=30)
SIZES = st.tuples(st.integers(4, 512), st.integers(4, 512))


def of(*shapes: tuple[int, int], times: int = 1) -> np.ndarray:
    return np.array(shapes * times)


def test_images_of_the_models_ratio_need_no_fitting():
    assert choose_fit(of((28, 28), times=3), (28, 28)) == ("pad", "")
    assert choose_fit(of((280, 560), (28, 56)), (14, 28)) == ("pad", "")


@pytest.mark.parametrize("shape", [(280, 281), (1000, 1019), (510, 500)])
def test_images_of_nearly_the_models_ratio_are_stretched(shape):
    fit, reason = choose_fit(of(shape, (224, 224)), (224, 224))
    assert fit == "squash"
    assert reason.startswith("Images are ")
    assert "they are stretched (data.fit=squash), which changes nothing to be seen; data.fit=pad" in reason


def test_images_of_which_little_is_cut_are_cropped():
    fit, reason = choose_fit(of((480, 500), (470, 500), times=20), (224, 224))
    assert fit == "crop"
    assert reason == (
        "Images are 1.04 to 1.06 times as wide as high (of 40 images looked at), the model's 1.00: they are cropped "
        "(data.fit=crop), which cuts off 6% of an image at most, or nearly so; data.fit=pad keeps the whole of each"
    )


def test_one_image_in_twenty_may_lose_more():
    usual, long = [(480, 500)], [(100, 900)]
    assert choose_fit(of(*usual * 99, *long), (64, 64)).fit == "crop"
    assert choose_fit(of(*usual * 90, *long * 10), (64, 64)).fit == "pad"


def test_all_else_is_padded():
    fit, reason = choose_fit(of((341, 256), (256, 341), (600, 300), times=20), (64, 64))
    assert fit == "pad"
    assert reason == (
        "Images are 0.50 to 1.33 times as wide as high (of 60 images looked at), the model's 1.00: they are padded "
        "(data.fit=pad), as cropping would cut off 50% of some; data.fit=crop fills the model's view, data.fit=native "
        "lets a ViT leave the padding out"
    )


@given(shapes=SHAPES, size=SIZES, times=st.integers(1, 5))
def test_the_choice_depends_on_ratios_alone(shapes, size, times):
    array = np.array(shapes)
    chosen = choose_fit(array, size).fit
    assert chosen == choose_fit(array[::-1] * times, size).fit
    assert chosen == choose_fit(array, (size[0] * times, size[1] * times)).fit
    assert chosen == choose_fit(array[:, ::-1], size[::-1]).fit
    wide, high = array[:, 1] * size[0], array[:, 0] * size[1]
    nearly = np.maximum(wide, high) * 100 <= np.minimum(wide, high) * 102
    assert (chosen == "squash") == (nearly.all() and not (wide == high).all())
