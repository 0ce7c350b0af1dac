"""What an explanation is of: a class, or one class against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """A class by its index, and the one that it is contrasted with, if any."""

    index: int
    against: int | None = None


def target_values(logits: Tensor, targets: Sequence[Target]) -> Tensor:
    """Of each image its target's logit, or by how much that exceeds the other's: (B, K) -> (B,)."""
    places = torch.arange(len(targets), device=logits.device)
    values = logits[places, [target.index for target in targets]]
    others = [place for place, target in enumerate(targets) if target.against is not None]
    if not others:
        return values
    against = logits.new_zeros(len(targets))
    against[others] = logits[others, [targets[place].against for place in others]]
    return values - against
