import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import photographs
from PIL import Image

from vitrail.data.near_duplicates import MAX_UNLIKENESS, connected, near_thumbnails
from vitrail.data.thumbnails import make_thumbnails

SIZE = 48
PHOTOGRAPHS = photographs(60, SIZE)


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def cut(image):
    return image.crop((1, 0, SIZE, SIZE - 1)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


COPIES = {
    "recompressed": lambda image: jpeg(image, 50),
    "half": lambda image: image.resize((SIZE // 2, SIZE // 2), Image.Resampling.BICUBIC).resize((SIZE, SIZE)),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.1 + 5))),
    "cut": cut,
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cut and recompressed": lambda image: jpeg(cut(image), 60),
}


def near_duplicates(blocks):
    return near_thumbnails(make_thumbnails(blocks))


def near_groups(blocks):
    found = near_duplicates(blocks)
    return connected(found.num_images, found.pairs)


def pairs_of(images):
    return [tuple(pair) for pair in near_duplicates([images]).pairs.tolist()]


@pytest.mark.parametrize("kind", COPIES)
def test_changed_copies_are_found_and_nothing_else(kind):
    changed = np.stack([np.asarray(COPIES[kind](Image.fromarray(image))) for image in PHOTOGRAPHS[:20]])
    found = pairs_of(np.concatenate([PHOTOGRAPHS, changed]))
    assert {*found} <= {(index, 60 + index) for index in range(20)}
    assert len(found) >= (20 if "cut" not in kind else 16)


def test_different_images_are_kept_apart():
    assert pairs_of(PHOTOGRAPHS) == []
    assert near_groups([PHOTOGRAPHS]).tolist() == [*range(60)]


def test_mirrored_turned_and_recoloured_images_are_others():
    image = PHOTOGRAPHS[0]
    recoloured = (image * np.array([0.4, 1, 1.6])).clip(0, 255).astype(np.uint8)
    assert pairs_of(np.stack([image, image[:, ::-1], image[::-1], image.transpose(1, 0, 2), recoloured])) == []


def test_equal_images_are_near_and_groups_go_through_others():
    images = PHOTOGRAPHS[[3, 1, 3, 2, 1, 3]]
    assert pairs_of(images) == [(0, 2), (0, 5), (1, 4)]
    assert [group.tolist() for group in near_duplicates([images]).groups()] == [[0, 2, 5], [1, 4]]
    assert near_groups([images[:2], images[2:]]).tolist() == [0, 1, 0, 2, 1, 0]
    chain = np.array([[1, 4], [4, 2], [0, 5]])
    assert connected(6, chain).tolist() == [0, 1, 1, 2, 1, 0]


@settings(max_examples=10)
@given(st.permutations(range(90)), st.integers(1, 90))
def test_the_order_of_images_makes_no_difference(order, first_block):
    numbers = np.random.default_rng(1)
    changed = PHOTOGRAPHS[:20].astype(int) + numbers.integers(-6, 7, (20, SIZE, SIZE, 3))
    flat = np.full((10, SIZE, SIZE, 3), 90) + np.arange(10)[:, None, None, None] // 2
    images = np.concatenate([PHOTOGRAPHS, changed.clip(0, 255), flat]).astype(np.uint8)
    before = near_groups([images])
    shuffled = images[np.array(order)]
    after = near_groups([shuffled[:first_block], shuffled[first_block:]])
    assert [*dict.fromkeys(after.tolist())] == [*range(after.max() + 1)]
    assert len({*zip(before[np.array(order)].tolist(), after.tolist(), strict=True)}) == before.max() + 1
    assert after.max() == before.max()


def test_flat_images_are_near_only_where_their_pixels_are():
    values = np.array([0, 1, 60, 61, 120, 200, 255, 60])
    images = np.ones((8, SIZE, SIZE, 1), np.uint8) * values[:, None, None, None].astype(np.uint8)
    assert pairs_of(images) == [(0, 1), (2, 3), (2, 7)]
    images = np.concatenate([images] * 3, axis=3)
    images[7, ..., 0] = 90  # the same brightness is not the same colour
    assert pairs_of(images) == [(0, 1), (2, 3)]


def test_thousands_of_equal_images_are_one_group_at_once():
    found = near_duplicates([np.zeros((5000, 16, 16, 1), np.uint8), PHOTOGRAPHS[:3, :16, :16, :1]])
    assert [len(group) for group in found.groups()] == [5000]
    assert len(found.pairs) == 4999


def test_digits_that_look_alike_are_no_copies(digit_images):
    found = near_duplicates([digit_images[..., None]])
    assert len(found.pairs) == 0
    assert found.notes == (
        "Many images look alike by nature, so near copies are told only where they are hardly changed",
    )


def test_a_crowd_of_images_is_compared_with_neighbours_only_and_that_is_said():
    numbers = np.random.default_rng(0)
    crowd = PHOTOGRAPHS[0].astype(int) + numbers.integers(-12, 13, (700, SIZE, SIZE, 3))
    found = near_duplicates([crowd.clip(0, 255).astype(np.uint8), PHOTOGRAPHS])
    assert [len(group) for group in found.groups()] == [701]
    assert len(found.pairs) < 701 * 300
    assert "So many images look alike that only the most alike pairs of them were compared" in found.notes


def test_few_images_or_none_are_no_trouble():
    assert near_groups([]).tolist() == []
    assert near_groups([PHOTOGRAPHS[:1]]).tolist() == [0]
    assert near_groups([PHOTOGRAPHS[:2]]).tolist() == [0, 1]


def test_what_is_found_in_photographs_are_copies(data_folder):
    file = pq.ParquetFile(data_folder("cifar10") / "train-00000-of-00001.parquet")
    encoded = file.read_row_groups([0, 1], columns=["img"]).column("img").to_pylist()
    images = np.stack([np.asarray(Image.open(io.BytesIO(one["bytes"]))) for one in encoded])
    found = near_duplicates([images])
    # Looked at: it is one photograph of one car, twice.
    assert found.pairs.tolist() == [[1077, 1692]]
    assert (found.unlikeness < MAX_UNLIKENESS).all()
