"""What is required of results, and what misses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.errors import ConfigError, suggest

_BETTER_SMALL = frozenset({"loss", "ece", "loss_uncalibrated", "ece_uncalibrated"})
_NO_MERIT = frozenset({"temperature", "smallest_difference"})


def missed_requirements(metrics: Mapping[str, Any], requirements: Mapping[str, float]) -> list[str]:
    """One sentence for each result that misses what is required of it, such as {"accuracy": 0.95}.

    Results must be at least as large; loss and ece, which are better small, at most.
    Raises ConfigError for a name that is no single number among the results.
    """
    numbers = {
        name: value for name, value in metrics.items() if isinstance(value, int | float) and name not in _NO_MERIT
    }
    for name in requirements:
        if name not in numbers:
            raise ConfigError(
                f"There is no result {name!r} to require.{suggest(name, numbers)} Use one of {', '.join(numbers)}"
            )
    missed: list[str] = []
    for name, required in requirements.items():
        if name in _BETTER_SMALL and not numbers[name] <= required:
            missed.append(f"{name} is {numbers[name]:.6g}, above the required {required:.6g}")
        elif name not in _BETTER_SMALL and not numbers[name] >= required:
            missed.append(f"{name} is {numbers[name]:.6g}, below the required {required:.6g}")
    return missed
