import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from vitrail.data.augment import AugmentConfig, augment_batch, flips_hurt, repeated, seed_of
from vitrail.data.colors import apply_color_jitter, draw_color_jitter
from vitrail.data.geometry import apply_affine, apply_crop, apply_flip, draw_affine, draw_crop, draw_flip
from vitrail.data.mixing import apply_erase, draw_cutmix, draw_erase, draw_mixup
from vitrail.data.policies import apply_policy, draw_policy

MOVES = {"shift_pixels": 2, "rotate_degrees": 30, "scale_rate": 0.2, "shear_degrees": 15}
COLORS = {"policy": "randaugment", "color_jitter": 0.3}
MIXES = {"erase_rate": 0.5, "mixup_alpha": 0.4, "cutmix_rate": 0.5}
EVERYTHING = AugmentConfig(crop_scale=(0.3, 1), flip_rate=0.5, **MOVES, **COLORS, **MIXES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num_images: int = 6, size: tuple[int, int] = (8, 8), channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (num_images, channels, *size), generator=generator(1), dtype=torch.uint8)


DRAWS = {
    "crop": lambda g: draw_crop(9, (8, 6), (0.1, 1), (3 / 4, 4 / 3), g),
    "affine": lambda g: draw_affine(9, (8, 6), g, **MOVES),
    "flip": lambda g: draw_flip(9, 0.5, g),
    "randaugment": lambda g: draw_policy(9, (8, 6), "randaugment", 9, 2, g),
    "trivialaugment": lambda g: draw_policy(9, (8, 6), "trivialaugment", 9, 2, g),
    "3augment": lambda g: draw_policy(9, (8, 6), "3augment", 9, 2, g),
    "color_jitter": lambda g: draw_color_jitter(9, 0.3, g),
    "erase": lambda g: draw_erase(9, (8, 6), 0.7, g),
    "mixup": lambda g: torch.stack(draw_mixup(9, 0.4, g)),
    "cutmix": lambda g: draw_cutmix(9, (8, 6), 0.7, g)[0],
    "cutmix_partner": lambda g: draw_cutmix(9, (8, 6), 0.7, g)[1],
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_parameters_are_a_function_of_the_generator_alone(draw):
    torch.manual_seed(1)
    first = draw(generator(5))
    torch.manual_seed(2)
    torch.rand(3)
    assert torch.equal(draw(generator(5)), first)
    assert not torch.equal(draw(generator(6)), first)


APPLICATIONS = {
    "crop": lambda images, boxes: apply_crop(images, boxes, (5, 7)),
    "affine": apply_affine,
    "flip": apply_flip,
    "randaugment": apply_policy,
    "trivialaugment": apply_policy,
    "3augment": apply_policy,
    "color_jitter": apply_color_jitter,
    "erase": apply_erase,
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applying_a_slice_gives_the_slice_of_the_whole(name):
    images, apply, parameters = noise(9, (8, 6), 3), APPLICATIONS[name], DRAWS[name](generator(3))
    whole = apply(images, parameters)
    one = 1 if whole.dtype == torch.uint8 else 1e-6
    for part in (slice(0, 4), slice(4, 9), slice(7, 8)):
        changed = apply(images[part], parameters[part])
        torch.testing.assert_close(changed.float(), whole[part].float(), rtol=0, atol=one)
    same = images if whole.dtype == torch.uint8 else images / 255
    assert whole.shape != images.shape or not torch.equal(whole, same)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_images_are_not_changed_in_place(name):
    images = noise(9, (8, 6))
    before = images.clone()
    APPLICATIONS[name](images, DRAWS[name](generator(3)))
    assert torch.equal(images, before)


@given(keys=st.lists(st.integers(0, 2**64), min_size=1, max_size=5))
def test_seeds_are_63_bits_and_a_function_of_their_keys(keys):
    seed = seed_of(*keys)
    assert 0 <= seed < 2**63
    assert seed_of(*keys) == seed
    torch.Generator().manual_seed(seed)


def test_seeds_are_these_on_every_machine_and_differ():
    assert seed_of(0, 1, 2, 1) == 172699531396876328
    seeds = {seed_of(*keys) for keys in np.ndindex(4, 4, 4, 3)}
    assert len(seeds) == 4 * 4 * 4 * 3


# A whole batch


def test_the_default_changes_nothing():
    images, labels = noise(5), torch.arange(5)
    augmented, targets = augment_batch(images, labels, 5, AugmentConfig(), generator())
    assert augmented is images
    assert targets is labels


@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_a_batch_is_a_function_of_images_labels_and_seed(size):
    images, labels = noise(7, size, 3), torch.arange(7) % 4
    first = augment_batch(images, labels, 4, EVERYTHING, generator(2))
    again = augment_batch(images, labels, 4, EVERYTHING, generator(2))
    other = augment_batch(images, labels, 4, EVERYTHING, generator(3))
    assert first[0].shape == images.shape
    assert first[1].shape == (7, 4)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert first[0].min() >= 0
    assert first[0].max() <= 1 + 1e-5


@pytest.mark.parametrize(
    ("settings", "dtype", "target_shape"),
    [
        ({"flip_rate": 0.5, "erase_rate": 0.5}, torch.uint8, (6,)),
        ({"shift_pixels": 1}, torch.float32, (6,)),
        ({"color_jitter": 0.5}, torch.float32, (6,)),
        ({"mixup_alpha": 1.0}, torch.float32, (6, 3)),
        ({"cutmix_rate": 1.0}, torch.uint8, (6, 3)),
    ],
)
def test_each_setting_alone_changes_the_batch(settings, dtype, target_shape):
    images, labels = noise(6), torch.arange(6) % 3
    augmented, targets = augment_batch(images, labels, 3, AugmentConfig(**settings), generator())
    assert (augmented.dtype, targets.shape) == (dtype, target_shape)
    scaled = augmented.float() / (255 if dtype == torch.uint8 else 1)
    assert (scaled - images / 255).abs().max() > 0.1


def test_each_move_counts_as_one():
    assert not AugmentConfig(flip_rate=1, color_jitter=0.5, erase_rate=1, mixup_alpha=1, cutmix_rate=1).moves
    for key in ("shift_pixels", "rotate_degrees", "scale_rate", "shear_degrees"):
        assert AugmentConfig(**{key: 0.5}).moves


def test_mixup_and_cutmix_give_images_several_labels():
    assert not EVERYTHING.model_copy(update={"mixup_alpha": 0.0, "cutmix_rate": 0.0}).mixes
    assert AugmentConfig(mixup_alpha=0.1).mixes
    assert AugmentConfig(cutmix_rate=0.1).mixes


@pytest.mark.parametrize(
    "settings",
    [
        {"shift_pixels": -1},
        {"rotate_degrees": 181},
        {"scale_rate": 1.0},
        {"shear_degrees": 90},
        {"flip_rate": 1.1},
        {"erase_rate": -0.1},
        {"color_jitter": 1.0},
        {"mixup_alpha": -1},
        {"cutmix_rate": 1.1},
        {"rotate": 3},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        AugmentConfig(**settings)


# Crops


def test_crops_come_at_the_models_size_from_a_larger_canvas():
    images, config = noise(6, (20, 15), 3), AugmentConfig(crop_scale=(0.2, 0.6))
    cropped, _ = augment_batch(images, torch.arange(6), 6, config, generator(), image_size=(16, 12))
    boxes = draw_crop(6, (20, 15), (0.2, 0.6), config.crop_ratio, generator())
    assert torch.equal(cropped, apply_crop(images, boxes, (16, 12)))
    assert augment_batch(images, torch.arange(6), 6, config, generator())[0].shape == images.shape


def test_all_that_follows_has_the_models_size():
    images, labels = noise(6, (20, 15), 3), torch.arange(6)
    changed, targets = augment_batch(images, labels, 6, EVERYTHING, generator(), image_size=(16, 12))
    assert changed.shape == (6, 3, 16, 12)
    assert targets.shape == (6, 6)


# Policies


def test_three_augment_comes_with_colour_jitter():
    assert AugmentConfig(policy="3augment").jitter == 0.3
    assert AugmentConfig(policy="3augment", color_jitter=0.1).jitter == 0.1
    assert AugmentConfig(policy="randaugment").jitter == 0
    images = noise(6, (8, 8), 3)
    changed, _ = augment_batch(images, torch.arange(6), 6, AugmentConfig(policy="3augment"), generator(4))
    numbers = generator(4)
    expected = apply_policy(images, draw_policy(6, (8, 8), "3augment", 9, 2, numbers))
    assert torch.equal(changed, apply_color_jitter(expected, draw_color_jitter(6, 0.3, numbers)))


# Images whose last channel tells what is padding


def with_padding(colors: Tensor) -> Tensor:
    """The images with a quarter of the columns padding, and the channel that says so."""
    inside = torch.zeros_like(colors[:, :1])
    inside[..., colors.shape[3] // 4 :] = 255
    return torch.cat([colors * (inside > 0), inside], dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", [COLORS, MOVES, MIXES, {"crop_scale": (0.3, 1)}, {"policy": "trivialaugment"}])
def test_what_is_padding_stays_black_and_told_apart(channels, settings):
    images = with_padding(noise(40, (12, 12), channels) | 1)
    config = AugmentConfig(**settings)
    changed, _ = augment_batch(
        images,
        torch.arange(40),
        40,
        config,
        generator(),
        (10, 8) if "crop_scale" in settings else None,
        num_colors=channels,
    )
    colors, inside = changed[:, :channels], changed[:, channels]
    assert changed.shape[1] == channels + 1
    assert {*inside.unique().tolist()} <= {0, 255 if changed.dtype == torch.uint8 else 1}
    assert colors.movedim(1, -1)[inside == 0].sum() == 0
    assert inside.flatten(1).amax(dim=1).min() > 0


def test_colours_change_as_without_padding_told_apart():
    images = noise(6, (8, 8), 3)
    config = AugmentConfig(policy="randaugment", color_jitter=0.3)
    inside = torch.full_like(images[:, :1], 255)
    alone, _ = augment_batch(images, torch.arange(6), 6, config, generator())
    both, _ = augment_batch(torch.cat([images, inside], dim=1), torch.arange(6), 6, config, generator(), num_colors=3)
    moved_out = both[:, 3:] == 0
    torch.testing.assert_close(both[:, :3], alone.masked_fill(moved_out, 0), rtol=0, atol=1e-6)


def test_moves_take_the_padding_along():
    images = with_padding(torch.full((2, 3, 8, 8), 200, dtype=torch.uint8))
    flipped, _ = augment_batch(images, torch.arange(2), 2, AugmentConfig(flip_rate=1), generator(), num_colors=3)
    assert torch.equal(flipped, images.flip(-1))


def test_crops_are_cut_from_what_is_inside():
    images = with_padding(torch.full((30, 1, 16, 16), 200, dtype=torch.uint8))
    config = AugmentConfig(crop_scale=(0.1, 0.5))
    cropped, _ = augment_batch(images, torch.arange(30), 30, config, generator(), (8, 8), num_colors=1)
    assert cropped[:, 0].unique().tolist() == [200]
    assert cropped[:, 1].unique().tolist() == [255]


def test_an_image_that_is_moved_out_of_its_frame_is_inside_everywhere():
    images = with_padding(noise(50, (8, 8), 3))
    config = AugmentConfig(shift_pixels=40)
    moved, _ = augment_batch(images, torch.arange(50), 50, config, generator(), num_colors=3)
    gone = moved[:, :3].flatten(1).amax(dim=1) == 0
    assert gone.any()
    assert moved[gone, 3].min() == 1


# Several labels


def test_labels_of_several_classes_stay_where_nothing_is_mixed():
    images, labels = noise(4), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    assert augment_batch(images, labels, 3, AugmentConfig(flip_rate=1), generator())[1] is labels
    _, targets = augment_batch(images, labels, 3, AugmentConfig(mixup_alpha=1, cutmix_rate=1), generator())
    assert targets.shape == (4, 3)
    assert targets.min() >= 0
    assert targets.max() <= 1


# Repeated augmentation


def test_repeats_are_written_down():
    order = np.array([4, 0, 3, 1, 2])
    assert repeated(order, 1).tolist() == [4, 0, 3, 1, 2]
    assert repeated(order, 2).tolist() == [4, 4, 0, 0, 3]
    assert repeated(order, 7).tolist() == [4] * 5


@given(num_images=st.integers(1, 60), repeats=st.integers(1, 8), num_groups=st.integers(1, 5))
def test_batches_hold_each_of_their_images_as_often(num_images, repeats, num_groups):
    order = repeated(np.random.default_rng(0).permutation(num_images), repeats)
    assert len(order) == num_images
    size = repeats * num_groups
    for start in range(0, num_images - size + 1, size):
        images, counts = np.unique(order[start : start + size], return_counts=True)
        assert len(images) == num_groups
        assert (counts == repeats).all()


# Digits and letters


@pytest.mark.parametrize(
    ("classes", "hurt"),
    [
        (tuple("0123456789"), True),
        (("a", "B", "c"), True),
        (("A", "7"), True),
        (("お", "き"), True),
        (("Zero", "one"), True),
        (("cat", "dog"), False),
        (("T-shirt/top", "Trouser", "Bag"), False),
        (("1", "2", "background"), False),
        (tuple(map(str, range(100))), False),
        (("+", "-"), False),
    ],
)
def test_digits_and_letters_are_known_by_their_names(classes, hurt):
    assert flips_hurt(classes) is hurt
