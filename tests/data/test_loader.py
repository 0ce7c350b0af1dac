import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.dataset import ImageSet, number_names
from vitrail.data.loader import MemoryLoader, channels_first, epoch_order, to_tensors

CPU = torch.device("cpu")


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


def test_an_epoch_shows_each_image_once_with_its_own_label():
    loader = MemoryLoader(numbered(24), 6, seed=0, device=CPU)
    assert (loader.num_batches, loader.batch_size) == (4, 6)
    for epoch in (0, 1):
        seen = [loader.batch(epoch, index) for index in range(4)]
        labels = torch.cat([labels for _, labels in seen])
        assert sorted(labels.tolist()) == list(range(24))
        assert labels.tolist() == epoch_order(24, 0, epoch).tolist()
        images = torch.cat([images for images, _ in seen])
        assert images.dtype == torch.uint8
        assert images[:, 0, 0, 0].tolist() == labels.tolist()


def test_any_batch_can_be_asked_for_directly():
    loader = MemoryLoader(numbered(20), 5, seed=4, device=CPU)
    sequential = {(epoch, index): loader.batch(epoch, index) for epoch in range(3) for index in range(4)}
    fresh = MemoryLoader(numbered(20), 5, seed=4, device=CPU)
    for place in [(2, 3), (0, 0), (1, 2), (2, 0), (0, 3), (1, 1), (1, 0)]:
        for ours, theirs in zip(fresh.batch(*place), sequential[place], strict=True):
            assert torch.equal(ours, theirs)


def test_images_that_do_not_fill_the_last_batch_change_with_the_epoch():
    loader = MemoryLoader(numbered(22), 5, seed=0, device=CPU)
    assert loader.num_batches == 4
    left_out = []
    for epoch in range(6):
        seen = torch.cat([loader.batch(epoch, index)[1] for index in range(4)]).tolist()
        assert len({*seen}) == 20
        left_out.append(tuple(sorted({*range(22)} - {*seen})))
    assert len({*left_out}) > 1


def test_a_set_smaller_than_a_batch_is_one_batch():
    loader = MemoryLoader(numbered(7), 64, seed=0, device=CPU)
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
