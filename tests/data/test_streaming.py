import numpy as np
import pytest

from vitrail.data.content import content_hash
from vitrail.data.images import read_image
from vitrail.data.preprocess import Preprocess, prepare
from vitrail.data.records import Records
from vitrail.data.streaming import StreamedPixels, look_at

SIZE = Preprocess(image_size=(8, 6), channels=3, fit="crop")


@pytest.fixture
def streamed(tmp_path, write_photo):
    paths = [write_photo(tmp_path / f"{n}.png", n, (20, 16)) for n in range(8)]
    names = [path.name for path in paths]
    records = Records("here", names, np.zeros(8, np.int64), lambda n: paths[n].read_bytes(), lambda n: (n, 0, 0))
    return StreamedPixels(records, SIZE, np.array([7, 1, 2, 3, 0]))


def expected(streamed):
    return np.stack([prepare(read_image(streamed.records.read(n)), SIZE) for n in streamed.indices.tolist()])


def test_what_is_asked_for_is_decoded(streamed):
    whole = expected(streamed)
    assert (streamed.shape, streamed.dtype, len(streamed)) == (whole.shape, np.uint8, 5)
    for index in (slice(None), slice(1, 3), slice(4, 9), np.array([4, 0, 0]), np.array([], np.int64)):
        np.testing.assert_array_equal(streamed[index], whole[index])
    np.testing.assert_array_equal(streamed.take(np.array([3, 1]))[:], whole[[3, 1]])


def test_an_image_is_known_by_its_own_pixels(streamed):
    look = look_at(streamed.records, 7, SIZE)
    image = read_image(streamed.records.read(7))
    assert look.content == content_hash(np.asarray(image))
    np.testing.assert_array_equal(look.rough, np.asarray(image))
    np.testing.assert_array_equal(look.pixels, streamed[:1][0])
