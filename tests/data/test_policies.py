import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as torchvision_functional

from vitrail.data.policies import OPERATIONS, apply_policy, draw_policy

BILINEAR = {"interpolation": InterpolationMode.BILINEAR}
PUBLISHED = tuple(name for name in OPERATIONS if name not in ("greyscale", "blur"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num_images: int = 6, size: tuple[int, int] = (8, 8), channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (num_images, channels, *size), generator=generator(1), dtype=torch.uint8)


def drawn(*operations: tuple[str, float]) -> Tensor:
    """(B, 1, 2): one operation an image."""
    return torch.tensor([[[OPERATIONS.index(name), strength]] for name, strength in operations])


def by_torchvision(image: Tensor, name: str, strength: float) -> Tensor:
    """One operation on one image, as torchvision's RandAugment calls it, but that translations are not cut to whole."""
    if name.startswith("shear"):
        slope = math.degrees(math.atan(strength))
        shear = [slope, 0.0] if name == "shear_x" else [0.0, slope]
        return torchvision_functional.affine(
            image, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, center=[0, 0], **BILINEAR
        )
    if name.startswith("translate"):
        move = [strength, 0] if name == "translate_x" else [0, strength]
        return torchvision_functional.affine(image, angle=0.0, translate=move, scale=1.0, shear=[0.0, 0.0], **BILINEAR)
    return {
        "identity": lambda: image,
        "rotate": lambda: torchvision_functional.rotate(image, strength, **BILINEAR),
        "brightness": lambda: torchvision_functional.adjust_brightness(image, strength),
        "contrast": lambda: torchvision_functional.adjust_contrast(image, strength),
        "color": lambda: torchvision_functional.adjust_saturation(image, strength),
        "greyscale": lambda: torchvision_functional.rgb_to_grayscale(image, image.shape[0]),
        "sharpness": lambda: torchvision_functional.adjust_sharpness(image, strength),
        "blur": lambda: torchvision_functional.gaussian_blur(image, [13, 13], [strength, strength]),
        "posterize": lambda: torchvision_functional.posterize(image, int(strength)),
        "solarize": lambda: torchvision_functional.solarize(image, 255 * strength),
        "autocontrast": lambda: torchvision_functional.autocontrast(image),
        "equalize": lambda: torchvision_functional.equalize(image),
    }[name]()


STRENGTHS = {
    "identity": (0.0, 0.0),
    "shear_x": (0.3, -0.99),
    "shear_y": (0.25, -0.4),
    "translate_x": (3.0, -2.4),
    "translate_y": (-5.0, 1.3),
    "rotate": (27.0, -135.0),
    "brightness": (0.1, 1.9),
    "contrast": (0.3, 1.7),
    "color": (0.01, 1.9),
    "greyscale": (0.0, 0.0),
    "sharpness": (0.1, 1.9),
    "blur": (0.4, 1.8),
    "posterize": (4.0, 2.0),
    "solarize": (0.3, 0.9),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
}
# Levels of 255: torchvision cuts fractions off where we round, and rounds between the steps of a colour change.
TOLERANCE = {"contrast": 2, "color": 2} | dict.fromkeys(("identity", "posterize", "solarize", "equalize"), 0)


@pytest.mark.parametrize("size", [(20, 20), (18, 25)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_torchvisions(name, size):
    images = noise(2, size) // 2 + 30  # nothing is clipped twice
    changed = apply_policy(images, drawn(*((name, strength) for strength in STRENGTHS[name])))
    assert changed.dtype == torch.uint8
    for image, strength, ours in zip(images, STRENGTHS[name], changed, strict=True):
        theirs = by_torchvision(image, name, strength)
        assert (ours.int() - theirs.int()).abs().max() <= TOLERANCE.get(name, 1)
    assert name == "identity" or not torch.equal(changed, images)


def test_a_batch_of_all_operations_gives_each_image_its_own():
    images = noise(48, (9, 13))
    names = [OPERATIONS[index] for index in torch.randperm(48, generator=generator()) % len(OPERATIONS)]
    steps = drawn(*((name, STRENGTHS[name][index % 2]) for index, name in enumerate(names)))
    whole = apply_policy(images, steps)
    for index in range(48):
        alone = apply_policy(images[index : index + 1], steps[index : index + 1])
        assert (whole[index].int() - alone[0].int()).abs().max() <= 1


def test_operations_follow_one_another():
    images = noise(4)
    first, second = drawn(*[("posterize", 3.0)] * 4), drawn(*[("solarize", 0.4)] * 4)
    both = apply_policy(images, torch.cat([first, second], dim=1))
    assert torch.equal(both, apply_policy(apply_policy(images, first), second))
    assert not torch.equal(both, apply_policy(images, torch.cat([second, first], dim=1)))


def test_images_of_floats_are_taken_by_their_levels():
    images, steps = noise(20), draw_policy(20, (8, 8), "trivialaugment", 9, 2, generator())
    assert torch.equal(apply_policy(images / 255, steps), apply_policy(images, steps))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_number_of_channels_are_taken(channels):
    images = noise(64, (1, 2), channels)
    for policy in ("randaugment", "trivialaugment", "3augment"):
        changed = apply_policy(images, draw_policy(64, (1, 2), policy, 9, 2, generator()))
        assert (changed.dtype, changed.shape) == (torch.uint8, images.shape)


def test_only_moves_change_the_channel_after_the_colours():
    images = torch.full((16, 4, 8, 8), 255, dtype=torch.uint8)
    steps = drawn(*((name, STRENGTHS[name][0]) for name in OPERATIONS))
    last = apply_policy(images, steps, num_colors=3)[:, 3]
    for name, channel in zip(OPERATIONS, last, strict=True):
        assert (channel.min() == 0) == name.startswith(("shear", "translate", "rotate"))


# What is drawn


def magnitudes(policy: str, num_images: int = 20_000, magnitude: float = 9, size=(20, 40)) -> dict[str, Tensor]:
    """The strengths drawn for each operation."""
    steps = draw_policy(num_images, size, policy, magnitude, 2, generator()).flatten(0, 1)
    return {name: steps[steps[:, 0] == index, 1] for index, name in enumerate(OPERATIONS)}


@pytest.mark.parametrize(
    ("policy", "space"),
    [
        ("randaugment", v2.RandAugment._AUGMENTATION_SPACE),
        ("trivialaugment", v2.TrivialAugmentWide._AUGMENTATION_SPACE),
    ],
)
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_strengths_are_torchvisions(policy, space, magnitude):
    found = magnitudes(policy, 6000, magnitude)
    assert len(space) == 14
    for key, (levels, signed) in space.items():
        name = {"ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x", "TranslateY": "translate_y"}.get(
            key, key.lower()
        )
        theirs = levels(31, 20, 40)
        if theirs is None:
            assert len(found[name]) > 0
            continue
        theirs = theirs.float() if policy == "trivialaugment" else theirs[magnitude : magnitude + 1].float()
        ours = found[name] - float(name in ("brightness", "contrast", "color", "sharpness"))
        assert bool((ours < -1e-6).any()) == (signed and bool((theirs != 0).any()))
        distance = (ours.abs()[:, None] - theirs).abs().min(dim=1).values
        assert distance.max() < 1e-5
        reached = (theirs[:, None] - ours.abs()).abs().min(dim=1).values
        assert reached.max() < 1e-5


@pytest.mark.parametrize(("policy", "steps"), [("randaugment", 2), ("trivialaugment", 1), ("3augment", 1)])
def test_operations_are_equally_likely(policy, steps):
    counts = {name: len(values) / (20_000 * steps) for name, values in magnitudes(policy).items()}
    chosen = ("greyscale", "solarize", "blur") if policy == "3augment" else PUBLISHED
    for name, count in counts.items():
        assert abs(count - (name in chosen) / len(chosen)) < 0.012


def test_operations_of_one_image_are_drawn_each_for_itself():
    steps = draw_policy(20_000, (8, 8), "randaugment", 9, 3, generator())
    assert steps.shape == (20_000, 3, 2)
    assert torch.corrcoef(steps[:, :, 0].T).fill_diagonal_(0).abs().max() < 0.03


def test_three_augment_draws_as_deit_does():
    found = magnitudes("3augment")
    assert found["greyscale"].unique().tolist() == [0]
    assert (found["solarize"] * 255).round().unique().tolist() == [128]
    assert found["blur"].min() >= 0.1
    assert found["blur"].max() <= 2
    assert abs(found["blur"].mean() - 1.05) < 0.03
