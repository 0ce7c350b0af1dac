import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.dataset import ImageSet, number_names
from vitrail.data.loader import (
    MemoryLoader,
    PrefetchLoader,
    channels_first,
    create_loader,
    epoch_order,
    to_tensors,
)
from vitrail.errors import DataError

CPU = torch.device("cpu")
KINDS = ["memory", "mapped", "lazy"]


def numbered(count: int, channels: int = 1) -> ImageSet:
    """Images whose pixels tell their number, so that any mix-up of images and labels shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 4, channels), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    return ImageSet(pixels, np.arange(count, dtype=np.int64), number_names("train", count))


@pytest.mark.parametrize("channels", [1, 3])
def test_tensors_have_channels_first_and_every_pixel_in_its_place(channels):
    images = numbered(5, channels)
    pixels, labels = to_tensors(images, CPU)
    assert (pixels.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert pixels.shape == (5, channels, 3, 4)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    for channel in range(channels):
        np.testing.assert_array_equal(pixels[:, channel].numpy(), images.pixels[..., channel])


def test_arrays_that_cannot_be_written_to_are_taken():
    images = numbered(3)
    images.pixels.flags.writeable = images.labels.flags.writeable = False
    pixels, labels = to_tensors(images, CPU)
    assert (pixels.shape, labels.tolist()) == ((3, 1, 3, 4), [0, 1, 2])


@given(count=st.integers(1, 200), seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_an_epoch_is_a_permutation_and_a_function_of_seed_and_epoch(count, seed, epoch):
    order = epoch_order(count, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))
    np.random.default_rng(epoch).random(3)
    assert epoch_order(count, seed, epoch).tolist() == order.tolist()


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_order_is_this_on_every_machine():
    assert epoch_order(10, seed=3, epoch=2).tolist() == [6, 2, 1, 4, 3, 9, 7, 8, 0, 5]


def test_the_order_does_not_depend_on_global_generators():
    np.random.seed(0)  # the very state that must not matter
    torch.manual_seed(0)
    first = epoch_order(30, 1, 1).tolist()
    np.random.seed(9)
    torch.manual_seed(9)
    assert epoch_order(30, 1, 1).tolist() == first


class LazyPixels:
    """Pixels that are made when they are asked for; `broken` of them cannot be."""

    def __init__(self, pixels, broken=()):
        self.pixels, self.broken, self.asked = pixels, broken, []
        self.shape, self.dtype = pixels.shape, pixels.dtype

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        self.asked.append(index)
        if not isinstance(index, slice) and {*index.tolist()} & {*self.broken}:
            raise DataError("image 3 is gone")
        return self.pixels[index]

    def take(self, indices):
        return LazyPixels(self.pixels[indices])


@pytest.fixture
def loader_of(tmp_path):
    """`loader_of(kind, images, batch_size, seed)`: the loader of images that are kept so."""

    def make(kind, images, batch_size, seed=0, **how):
        pixels = images.pixels
        if kind == "mapped":
            path = tmp_path / f"{len(images)}.pixels"
            path.write_bytes(pixels.tobytes())
            pixels = np.memmap(path, np.uint8, "r", shape=pixels.shape)
        elif kind == "lazy":
            pixels = LazyPixels(pixels)
        kept = ImageSet(pixels, images.labels, images.names)
        order = functools.partial(epoch_order, len(images), seed)
        loader = create_loader(kept, batch_size, order, CPU, serving=kind if kind == "mapped" else "auto", **how)
        assert type(loader) is (MemoryLoader if kind == "memory" else PrefetchLoader)
        return loader

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_shows_each_image_once_with_its_own_label(kind, loader_of):
    loader = loader_of(kind, numbered(24), 6)
    assert (loader.num_batches, loader.batch_size) == (4, 6)
    for epoch in (0, 1):
        seen = [loader.batch(epoch, index) for index in range(4)]
        labels = torch.cat([labels for _, labels in seen])
        assert sorted(labels.tolist()) == list(range(24))
        assert labels.tolist() == epoch_order(24, 0, epoch).tolist()
        images = torch.cat([images for images, _ in seen])
        assert images.dtype == torch.uint8
        assert images[:, 0, 0, 0].tolist() == labels.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_any_batch_can_be_asked_for_directly(kind, loader_of):
    loader = loader_of("memory", numbered(20), 5, seed=4)
    sequential = {(epoch, index): loader.batch(epoch, index) for epoch in range(3) for index in range(4)}
    fresh = loader_of(kind, numbered(20), 5, seed=4)
    for place in [(2, 3), (0, 0), (1, 2), (2, 0), (0, 3), (1, 1), (1, 0)]:
        for ours, theirs in zip(fresh.batch(*place), sequential[place], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_do_not_fill_the_last_batch_change_with_the_epoch(kind, loader_of):
    loader = loader_of(kind, numbered(22), 5)
    assert loader.num_batches == 4
    left_out = []
    for epoch in range(6):
        seen = torch.cat([loader.batch(epoch, index)[1] for index in range(4)]).tolist()
        assert len({*seen}) == 20
        left_out.append(tuple(sorted({*range(22)} - {*seen})))
    assert len({*left_out}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_smaller_than_a_batch_is_one_batch(kind, loader_of):
    loader = loader_of(kind, numbered(7), 64)
    assert (loader.num_batches, loader.batch_size) == (1, 7)
    assert sorted(loader.batch(5, 0)[1].tolist()) == list(range(7))


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_images_have_equal_strides_however_numpy_holds_them(channels):
    pixels = numbered(5, channels).pixels
    forms = [pixels, pixels.copy(), np.asfortranarray(pixels), np.flip(np.flip(pixels, 0).copy(), 0)]
    if channels == 1:
        forms.append(np.ascontiguousarray(pixels[..., 0])[..., None])  # a channel axis of stride 0
    for form in forms:
        tensor = channels_first(form)
        assert tensor.stride() == (channels * 12, 12, 4, 1)
        np.testing.assert_array_equal(tensor.numpy().transpose(0, 2, 3, 1), pixels)


def test_what_is_mapped_is_loaded_where_memory_has_room(tmp_path):
    path = tmp_path / "pixels"
    path.write_bytes(numbered(6).pixels.tobytes())
    images = ImageSet(np.memmap(path, np.uint8, "r", shape=(6, 3, 4, 1)), np.arange(6), number_names("train", 6))
    order = functools.partial(epoch_order, 6, 0)

    def kind(**how):
        return type(create_loader(images, 2, order, CPU, **how))

    assert kind() is MemoryLoader
    assert kind(memory_gigabytes=71e-9) is PrefetchLoader
    assert kind(memory_gigabytes=72e-9) is MemoryLoader
    assert kind(memory_gigabytes=0, serving="memory") is MemoryLoader
    assert kind(serving="mapped") is PrefetchLoader


def test_batches_are_made_ahead_of_their_time_and_once(loader_of):
    loader = loader_of("lazy", numbered(24), 4, num_workers=1)
    loader.batch(0, 0)
    for index in range(1, 6):
        loader.batch(0, index)
    loader.batch(1, 0)
    loader._pool.shutdown()
    asked = loader.images.pixels.asked
    expected = np.concatenate([epoch_order(24, 0, epoch).reshape(6, 4) for epoch in (0, 1)])
    assert [part.tolist() for part in asked] == expected[: len(asked)].tolist()
    assert len(asked) == 9  # two are ready


def test_an_image_that_cannot_be_read_is_told_when_its_batch_is_asked_for():
    images = ImageSet(LazyPixels(numbered(8).pixels, broken=(3,)), np.arange(8), number_names("train", 8))
    loader = PrefetchLoader(images, 2, lambda epoch: np.arange(8), CPU, 2)
    assert loader.batch(0, 0)[1].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"^image 3 is gone$"):
        loader.batch(0, 1)
