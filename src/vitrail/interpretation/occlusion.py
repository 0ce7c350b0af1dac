"""Evidence by covering: what the model's answer loses where a window of the image is filled with nothing.

Needs answers alone, no gradients: any engine will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vitrail.data.loader import channels_first
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target, target_values

WINDOWS = 8  # windows side by side along each side of an image, at most; others half-way between them
LEAST_PIXELS = 2  # of a window's side
MEMORY_VALUES = 2**22  # values of the covered images that are answered at once: 27 of 224x224 RGB


def occlusion(subject: Subject, images: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    """Maps (N, H, W) float32: the mean fall of the target over the windows that cover a pixel; signed.

    Windows are an eighth of each side, at least two pixels, and half a window apart, at most 226 forward passes an
    image; `num_passes` says how many. On MNIST windows of 4 pixels were more faithful than those of 6 and of 8, a
    patch. Zeiler and Fergus 2014, section 4.2, by Captum.
    """
    from captum.attr import Occlusion

    window = window_size((images.shape[1], images.shape[2]))
    strides = [(side + 1) // 2 for side in window]
    num_colours = len(subject.fill)
    fill = torch.from_numpy(np.rint(subject.fill)).float()[None, :, None, None]
    maps: list[Tensor] = []
    for image, target in zip(channels_first(images).split(1), targets, strict=True):
        colours, others = image[:, :num_colours].float(), image[:, num_colours:]

        def answer(covered: Tensor, others: Tensor = others, target: Target = target) -> Tensor:
            whole = torch.cat([covered.to(torch.uint8), others.expand(len(covered), -1, -1, -1)], dim=1)
            logits = subject.answer(np.ascontiguousarray(whole.permute(0, 2, 3, 1).numpy()))
            return target_values(torch.from_numpy(logits), [target] * len(logits))

        parts = Occlusion(answer).attribute(
            colours,
            sliding_window_shapes=(num_colours, *window),
            strides=(num_colours, *strides),
            baselines=fill,
            perturbations_per_eval=max(1, MEMORY_VALUES // images[0].size),
        )
        maps.append(parts.mean(dim=1))  # a window covers all colours at once, which have the same part
    return torch.cat(maps).float().numpy()


def window_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the windows for images of `shape`."""
    rows, columns = (min(side, max(LEAST_PIXELS, math.ceil(side / WINDOWS))) for side in shape)
    return rows, columns


def num_passes(shape: tuple[int, int]) -> int:
    """Forward passes that one map takes: one for each window, and one for the image as it is."""
    return math.prod(num_windows(shape)) + 1


def num_windows(shape: tuple[int, int]) -> tuple[int, int]:
    """How many windows there are down and across images of `shape`."""
    rows, columns = (
        math.ceil((side - window) / ((window + 1) // 2)) + 1
        for window, side in zip(window_size(shape), shape, strict=True)
    )
    return rows, columns
