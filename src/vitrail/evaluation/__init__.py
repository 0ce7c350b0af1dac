"""Arrays in, numbers out: how good a model is, how sure its probabilities are, how exact those numbers are."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.evaluation.calibration import expected_calibration_error
    from vitrail.evaluation.intervals import wilson_interval
    from vitrail.evaluation.metrics import classification_metrics, softmax

_MODULES = {
    "classification_metrics": "vitrail.evaluation.metrics",
    "expected_calibration_error": "vitrail.evaluation.calibration",
    "softmax": "vitrail.evaluation.metrics",
    "wilson_interval": "vitrail.evaluation.intervals",
}

__all__ = ["classification_metrics", "expected_calibration_error", "softmax", "wilson_interval"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
