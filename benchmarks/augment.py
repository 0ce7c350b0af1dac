"""Augmentation of a batch of 256 images of 32x32, beside torchvision's transforms image by image, and kornia.

The same operations in turn, on one thread: padded crop or shift, flip, colour jitter and erasing; RandAugment; random
resized crops from 40x40. All begin with uint8 and end with one tensor of the batch. torchvision (v2) is given tensors,
and Pillow images. kornia's RandAugment does one operation to all images of a batch, which is less work, ours and
torchvision's another to each. Aim: three times faster than either.

kornia is no dependency: pip install kornia
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import kornia.augmentation as K
import torch
from kornia.augmentation.auto import RandAugment
from table import print_machine, print_markdown, spread
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from vitrail.data.augment import AugmentConfig, augment_batch

BATCH, SIDE, CANVAS, ROUNDS = 256, 32, 40, 15

Work = Callable[[], torch.Tensor]


def ours(images: torch.Tensor, config: AugmentConfig) -> Work:
    labels, generator = torch.zeros(BATCH, dtype=torch.int64), torch.Generator().manual_seed(0)
    return lambda: augment_batch(images, labels, 10, config, generator, (SIDE, SIDE))[0]


def one_by_one(images: torch.Tensor, *transforms: torch.nn.Module) -> dict[str, Work]:
    """torchvision on tensors, and on Pillow images, of which only what comes after the last transform is a tensor."""
    pictures = [F.to_pil_image(image) for image in images]
    chain = v2.Compose(list(transforms))
    *first, last = transforms
    erases = isinstance(last, v2.RandomErasing)
    of_pictures = v2.Compose([*first, v2.PILToTensor(), last] if erases else [*transforms, v2.PILToTensor()])
    return {
        "torchvision, tensors": lambda: torch.stack([chain(image) for image in images]),
        "torchvision, Pillow": lambda: torch.stack([of_pictures(picture) for picture in pictures]),
    }


def in_batches(images: torch.Tensor, *transforms: torch.nn.Module) -> Work:
    chain = torch.nn.Sequential(*transforms)
    return lambda: chain(images.float() / 255)


def works() -> dict[str, dict[str, Work]]:
    """For each case, what is timed, by name; ours is the first."""
    numbers = torch.Generator().manual_seed(0)
    images, canvases = (
        torch.randint(0, 256, (BATCH, 3, side, side), generator=numbers, dtype=torch.uint8) for side in (SIDE, CANVAS)
    )
    basic = AugmentConfig(shift_pixels=4, flip_rate=0.5, color_jitter=0.3, erase_rate=0.25)
    return {
        "shift, flip, jitter, erasing": {
            "ours": ours(images, basic),
            **one_by_one(
                images,
                v2.RandomCrop(SIDE, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.3, 0.3, 0.3),
                v2.RandomErasing(0.25),
            ),
            "kornia": in_batches(
                images,
                K.RandomCrop((SIDE, SIDE), padding=4),
                K.RandomHorizontalFlip(),
                K.ColorJitter(0.3, 0.3, 0.3, 0.0, p=1.0),
                K.RandomErasing(p=0.25),
            ),
        },
        "RandAugment, two operations": {
            "ours": ours(images, AugmentConfig(policy="randaugment")),
            **one_by_one(images, v2.RandAugment(2, 9, interpolation=InterpolationMode.BILINEAR)),
            "kornia": in_batches(images, RandAugment(n=2, m=9)),
        },
        "random resized crop": {
            "ours": ours(canvases, AugmentConfig(crop_scale=(0.08, 1.0))),
            **one_by_one(canvases, v2.RandomResizedCrop(SIDE)),
            "kornia": in_batches(canvases, K.RandomResizedCrop((SIDE, SIDE))),
        },
    }


def measure(case: dict[str, Work]) -> dict[str, list[float]]:
    """Processor seconds of each, in turn; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in case}
    for turn in range(ROUNDS + 1):
        for name, work in case.items():
            started = time.process_time()
            assert work().shape == (BATCH, 3, SIDE, SIDE)
            if turn:
                seconds[name].append(time.process_time() - started)
    return seconds


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[tuple[str, ...]] = []
    for case, kinds in works().items():
        seconds = measure(kinds)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        best = min(value for name, value in medians.items() if name != "ours")
        rows.append(
            (case, *(spread(values, scale=1000) for values in seconds.values()), f"{best / medians['ours']:.1f}")
        )
    print_machine()
    names = [f"{name}, ms" for name in seconds]
    print_markdown((f"{BATCH} images of {SIDE}x{SIDE}", *names, "ours is faster than the best other, times"), rows)


if __name__ == "__main__":
    main()
