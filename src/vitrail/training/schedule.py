"""Learning rates as pure functions of progress: what part of training is done, from 0 to 1."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate_scale(
    progress: float,
    warmup_rate: float,
    schedule: Literal["cosine", "linear", "constant"],
    final_rate: float = 0.0,
) -> float:
    """The factor, in 0..1, on the highest learning rate at `progress` in 0..1.

    Rises linearly over the first `warmup_rate` of training, then falls to `final_rate` by a cosine
    (Loshchilov and Hutter 2017) or a straight line, or stays.
    """
    if progress < warmup_rate:
        return progress / warmup_rate
    if schedule == "constant":
        return 1.0
    after = min((progress - warmup_rate) / (1 - warmup_rate), 1.0)
    remaining = (1 + math.cos(math.pi * after)) / 2 if schedule == "cosine" else 1 - after
    return final_rate + (1 - final_rate) * remaining
