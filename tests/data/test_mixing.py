import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vitrail.data.mixing import apply_cutmix, apply_erase, apply_mixup, draw_cutmix, draw_erase, draw_mixup


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num_images: int = 6, size: tuple[int, int] = (8, 8), channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (num_images, channels, *size), generator=generator(1), dtype=torch.uint8)


# Erasing


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 1000))
def test_one_rectangle_is_erased_inside_the_image(rows, columns, seed):
    for mask in draw_erase(4, (rows, columns), 1.0, generator(seed)):
        in_rows, in_columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, in_rows[:, None] & in_columns[None, :])
        for inside in (in_rows, in_columns):
            places = inside.nonzero().flatten()
            assert len(places) >= 1
            assert places[-1] - places[0] == len(places) - 1


def test_erased_areas_and_sides_have_their_bounds():
    masks = draw_erase(3000, (100, 100), 1.0, generator())
    area = masks.flatten(1).float().mean(dim=1)
    assert 0.018 < area.min() < 0.025
    assert 0.19 < area.max() < 0.21
    assert abs(area.mean() - 0.11) < 0.005
    ratio = masks.any(dim=2).sum(dim=1) / masks.any(dim=1).sum(dim=1)
    assert ratio.min() > 1 / 3.3
    assert ratio.max() < 3.3
    assert abs(ratio.log().mean()) < 0.05
    centres = masks.float().mean(dim=0)
    for edge in (centres[0], centres[-1], centres[:, 0], centres[:, -1]):
        assert 0 < edge.max() < centres[50, 50]  # all places can be hit, the middle most


def test_the_rate_is_the_part_that_is_erased():
    erased = draw_erase(4000, (12, 12), 0.25, generator()).flatten(1).any(dim=1)
    assert abs(erased.float().mean() - 0.25) < 0.03


def test_erased_places_are_black_in_every_channel_and_others_stay():
    images, mask = noise(2, (3, 4), 3), torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 1:, 2] = True
    erased = apply_erase(images, mask)
    assert erased.dtype == torch.uint8
    assert erased[0, :, 1:, 2].sum() == 0
    assert torch.equal(erased[:, :, 0], images[:, :, 0])
    assert torch.equal(erased[1], images[1])


# Mixing


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_weights_are_the_larger_side_of_a_beta(alpha):
    weight, partner = draw_mixup(20_000, alpha, generator())
    assert weight.min() >= 0.5
    assert weight.max() <= 1
    assert torch.equal(partner.sort().values, torch.arange(20_000))
    # The mean of |X - 1/2| for X ~ Beta(a, a) is 2^(-2a) / (a B(a, a)).
    beta = math.gamma(alpha) ** 2 / math.gamma(2 * alpha)
    assert abs(weight.mean() - (0.5 + 2 ** (-2 * alpha) / (alpha * beta))) < 0.005


def test_mixtures_are_written_down():
    images = torch.tensor([[0, 255], [255, 0], [51, 51]], dtype=torch.uint8).view(3, 1, 1, 2)
    labels, weight, partner = torch.tensor([0, 3, 3]), torch.tensor([0.75, 1.0, 0.5]), torch.tensor([1, 2, 0])
    mixed, targets = apply_mixup(images, labels, 4, weight, partner)
    assert mixed.dtype == targets.dtype == torch.float32
    torch.testing.assert_close(mixed.flatten(1), torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.1, 0.6]]))
    torch.testing.assert_close(targets, torch.tensor([[0.75, 0, 0, 0.25], [0, 0, 0, 1], [0.5, 0, 0, 0.5]]))


@given(num_images=st.integers(1, 30), alpha=st.floats(0.05, 10), seed=st.integers(0, 1000))
def test_targets_are_probabilities_in_which_the_own_label_leads(num_images, alpha, seed):
    images = torch.full((num_images, 1, 2, 2), 255, dtype=torch.uint8)
    labels = torch.arange(num_images) % 3
    mixed, targets = apply_mixup(images, labels, 3, *draw_mixup(num_images, alpha, generator(seed)))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(num_images))
    assert targets.gather(1, labels[:, None]).min() >= 0.5
    torch.testing.assert_close(mixed, torch.ones(mixed.shape))


def test_pasted_rectangles_have_areas_of_every_size():
    pasted, partner = draw_cutmix(4000, (40, 30), 1.0, generator())
    assert torch.equal(partner.sort().values, torch.arange(4000))
    share = pasted.flatten(1).float().mean(dim=1)
    quarters = torch.histc(share, bins=4, min=0, max=1) / 4000
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.03)
    assert abs(share.mean() - 0.5) < 0.02
    for mask in pasted[:50]:
        assert torch.equal(mask, mask.any(dim=1)[:, None] & mask.any(dim=0)[None, :])
        assert abs(mask.any(dim=1).sum() / 40 - mask.any(dim=0).sum() / 30) < 0.04  # of the image's shape


def test_the_rate_is_the_part_that_is_pasted_into():
    pasted, _ = draw_cutmix(4000, (12, 12), 0.25, generator())
    assert abs(pasted.flatten(1).any(dim=1).float().mean() - 0.25) < 0.03


def test_pasted_images_are_written_down():
    images = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=torch.uint8).view(2, 1, 2, 2).expand(2, 3, 2, 2)
    pasted = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]]], dtype=torch.bool)
    mixed, targets = apply_cutmix(images, torch.tensor([2, 0]), 3, pasted, torch.tensor([1, 0]))
    assert mixed.dtype == torch.uint8
    assert mixed[0, 1].flatten().tolist() == [1, 2, 3, 8]
    assert torch.equal(mixed[1], images[1])
    torch.testing.assert_close(targets, torch.tensor([[0.25, 0, 0.75], [1, 0, 0]]))


def test_images_that_are_mixed_already_can_be_pasted_into():
    images, pasted = noise(2, (2, 2)), torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
    shares = torch.tensor([[0.6, 0.4, 0], [0, 0, 1]])
    _, targets = apply_cutmix(images, shares, 3, pasted, torch.tensor([1, 0]))
    torch.testing.assert_close(targets, torch.tensor([[0.3, 0.2, 0.5], [0, 0, 1]]))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_images_of_several_labels_are_mixed_with_all_of_them(dtype):
    images, labels = noise(2, (2, 2)), torch.tensor([[1, 1, 0], [0, 1, 1]], dtype=dtype)
    partner = torch.tensor([1, 0])
    _, targets = apply_mixup(images, labels, 3, torch.tensor([0.75, 1.0]), partner)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets, torch.tensor([[0.75, 1, 0.25], [0, 1, 1]]))
    pasted = torch.tensor([[[1, 0], [0, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
    _, targets = apply_cutmix(images, labels, 3, pasted, partner)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets, torch.tensor([[0.75, 1, 0.25], [0, 1, 1]]))


# Images whose last channel tells what is padding


def padded() -> Tensor:
    """Two grey images: the first is inside on the left, the second above."""
    images = noise(2, (2, 2), 2) | 1
    images[:, 1] = torch.tensor([[[255, 0], [255, 0]], [[255, 255], [0, 0]]])
    images[:, :1] *= images[:, 1:] > 0
    return images


def test_erasing_keeps_what_is_inside():
    images = padded()
    erased = apply_erase(images, torch.ones(2, 2, 2, dtype=torch.bool), num_colors=1)
    assert erased[:, 0].sum() == 0
    assert torch.equal(erased[:, 1], images[:, 1])


def test_what_is_inside_one_of_two_mixed_images_is_inside():
    images = padded()
    mixed, _ = apply_mixup(
        images, torch.tensor([0, 1]), 2, torch.tensor([0.7, 0.6]), torch.tensor([1, 0]), num_colors=1
    )
    assert torch.equal(mixed[:, 1], torch.tensor([[1.0, 1], [1, 0]]).expand(2, 2, 2))
    plain, _ = apply_mixup(images[:, :1], torch.tensor([0, 1]), 2, torch.tensor([0.7, 0.6]), torch.tensor([1, 0]))
    assert torch.equal(mixed[:, :1], plain)


def test_what_is_inside_is_pasted_with_the_rest():
    images, pasted = padded(), torch.tensor([[0, 1], [0, 0]], dtype=torch.bool).expand(2, 2, 2)
    mixed, _ = apply_cutmix(images, torch.tensor([0, 1]), 2, pasted, torch.tensor([1, 0]))
    assert mixed[0, 1].tolist() == [[255, 255], [255, 0]]
    assert mixed[1, 1].tolist() == [[255, 0], [0, 0]]
    assert mixed[0, 0, 0, 1] == images[1, 0, 0, 1]
