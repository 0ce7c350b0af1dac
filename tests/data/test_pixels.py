import numpy as np
import pytest

from vitrail.data import pixels as module
from vitrail.data.dataset import ImageSet
from vitrail.data.pixels import JoinedPixels, is_mapped, joined_pixels, pixel_blocks, take_pixels

WHOLE = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)


class Lazy:
    """Pixels that are made when they are asked for."""

    def __init__(self, pixels=WHOLE):
        self.pixels, self.shape, self.dtype, self.asked = pixels, pixels.shape, pixels.dtype, []

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.pixels[index]

    def take(self, indices):
        return Lazy(self.pixels[indices])


@pytest.fixture
def mapped(tmp_path):
    (tmp_path / "pixels").write_bytes(WHOLE.tobytes())
    return np.memmap(tmp_path / "pixels", np.uint8, "r", shape=WHOLE.shape)


def test_sets_are_joined_without_loading_them(mapped):
    joined = joined_pixels([WHOLE[:3], Lazy(), mapped])
    whole = np.concatenate([WHOLE[:3], WHOLE, WHOLE])
    assert isinstance(joined, JoinedPixels)
    assert (joined.shape, len(joined), joined.dtype) == (whole.shape, 23, np.uint8)
    for index in (slice(None), slice(2, 15), np.array([22, 0, 4, 4]), np.array([], np.int64)):
        np.testing.assert_array_equal(joined[index], whole[index])
    some = joined.take(np.array([5, 2, 21]))
    np.testing.assert_array_equal(some[:], whole[[5, 2, 21]])
    np.testing.assert_array_equal(some.take(np.array([1]))[:], whole[[2]])


def test_sets_in_memory_are_joined_there():
    assert type(joined_pixels([WHOLE, WHOLE])) is np.ndarray


def test_what_lies_in_files_is_known(mapped):
    assert is_mapped(mapped)
    assert is_mapped(joined_pixels([mapped, WHOLE]))
    assert not is_mapped(WHOLE)
    assert not is_mapped(Lazy())
    assert not is_mapped(joined_pixels([mapped, Lazy()]))


def test_a_part_of_what_is_mapped_is_mapped(mapped):
    indices = np.array([7, 1, 1])
    images = ImageSet(mapped, np.arange(10), tuple(map(str, range(10)))).take(indices)
    assert is_mapped(images.pixels)
    assert is_mapped(images.take(np.array([2, 0])).pixels)
    np.testing.assert_array_equal(images.pixels[:], WHOLE[indices])
    lazy = Lazy()
    assert type(take_pixels(lazy, indices)) is Lazy
    assert lazy.asked == []
    assert type(take_pixels(WHOLE, indices)) is np.ndarray


@pytest.mark.parametrize("block_bytes", [1, 200, 72 * 4, 10**6])
@pytest.mark.parametrize("num_lazy", [1, 3, 64])
def test_blocks_are_the_same_whatever_serves_them(mapped, block_bytes, num_lazy, monkeypatch):
    monkeypatch.setattr(module, "_NUM_LAZY", num_lazy)
    size = max(1, block_bytes // 72)
    for pixels in (WHOLE, mapped, Lazy(), joined_pixels([Lazy(WHOLE[:4]), mapped[4:]])):
        blocks = list(pixel_blocks(pixels, block_bytes))
        assert [len(block) for block in blocks] == [min(size, 10 - start) for start in range(0, 10, size)]
        np.testing.assert_array_equal(np.concatenate(blocks), WHOLE)


def test_an_image_that_cannot_be_had_ends_the_blocks():
    class Gone(Lazy):
        def __getitem__(self, index):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(pixel_blocks(Gone()))


def test_no_images_have_no_blocks():
    assert list(pixel_blocks(WHOLE[:0])) == []
    assert list(pixel_blocks(Lazy(WHOLE[:0]))) == []
