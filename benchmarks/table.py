"""What the benchmarks share: medians with their range, Markdown tables, the machine in a line."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence

import torch

from vitrail.environment import describe_environment


def spread(values: Sequence[float], digits: int = 1, scale: float = 1.0) -> str:
    """`12.3 (12.1 to 12.9)`: the median, then lowest and highest."""
    scaled = sorted(value * scale for value in values)
    low, high = scaled[0], scaled[-1]
    return f"{statistics.median(scaled):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def print_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table on stdout."""
    print("| " + " | ".join(headings) + " |")
    print("|" + "---|" * len(headings))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def print_machine() -> None:
    """Processor, cores, threads and versions."""
    facts = describe_environment("cpu")
    print(
        f"\n{facts['processor']}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}\n"
    )
