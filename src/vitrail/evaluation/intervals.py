"""Confidence intervals."""

# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from vitrail.errors import ConfigError, DataError


def wilson_interval(successes: int, num_images: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval (low, high) of the share `successes / num_images`, both as fractions in 0..1.

    Honest where the usual plus-or-minus is not: few images, or a share near 0 or 1.
    Raises DataError without images or with an impossible count, ConfigError for a confidence outside 0..1.
    Wilson 1927, without continuity correction.
    """
    if num_images < 1:
        raise DataError(f"num_images={num_images}: an interval needs at least one image")
    if not 0 <= successes <= num_images:
        raise DataError(f"successes={successes} is not possible among {num_images} images; use 0 to {num_images}")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence} is not between 0 and 1; use 0.95 for an interval of 95 %")

    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(num_images)).proportion_ci(confidence, method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))
