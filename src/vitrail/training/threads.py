"""How many threads a training on the CPU is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch

from vitrail.config import RunConfig
from vitrail.models import count_operations

# Threads meet several hundred times a step. With less work between two meetings than this they gain little when the
# machine is idle (digits: 3.8 s with two, 4.3 s with one) and lose much when it is not (42 s, 4.9 s): one that waits
# for its processor keeps all the others waiting. LOG.md has the measurements.
OPERATIONS_PER_THREAD = 5e8


def training_threads(config: RunConfig) -> int:
    """Threads for a run's steps: one for each half billion operations of a step, at most torch's own number.

    A function of the config and of torch's number alone, not of the clock, so that equal runs stay equal to the bit.
    """
    training = config.training
    # Each weight meets each token once forward and twice backward, a multiplication and an addition each time.
    operations = 6 * count_operations(config.model) * training.batch_size / training.accumulate
    return max(1, min(torch.get_num_threads(), int(operations / OPERATIONS_PER_THREAD)))


@contextlib.contextmanager
def threads(number: int) -> Generator[None]:
    """Let torch use `number` threads, and its own number again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
