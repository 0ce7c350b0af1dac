"""Arrays in, numbers out: how good a model is, how sure its probabilities are, how exact those numbers are."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.evaluation.calibration import (
        expected_calibration_error,
        fit_temperature,
        reliability_bins,
        validated_temperature,
    )
    from vitrail.evaluation.coverage import accuracy_coverage_curve, reject_threshold
    from vitrail.evaluation.intervals import bootstrap_confusions, wilson_interval
    from vitrail.evaluation.metrics import classification_metrics
    from vitrail.evaluation.multilabel import multilabel_metrics, validated_sigmoid_temperature
    from vitrail.evaluation.paired import (
        mcnemar_exact,
        paired_bootstrap,
        paired_comparison,
        smallest_detectable_difference,
    )
    from vitrail.evaluation.probabilities import sigmoid, softmax

_MODULES = {
    "accuracy_coverage_curve": "vitrail.evaluation.coverage",
    "bootstrap_confusions": "vitrail.evaluation.intervals",
    "classification_metrics": "vitrail.evaluation.metrics",
    "expected_calibration_error": "vitrail.evaluation.calibration",
    "fit_temperature": "vitrail.evaluation.calibration",
    "mcnemar_exact": "vitrail.evaluation.paired",
    "multilabel_metrics": "vitrail.evaluation.multilabel",
    "paired_bootstrap": "vitrail.evaluation.paired",
    "paired_comparison": "vitrail.evaluation.paired",
    "reject_threshold": "vitrail.evaluation.coverage",
    "reliability_bins": "vitrail.evaluation.calibration",
    "sigmoid": "vitrail.evaluation.probabilities",
    "smallest_detectable_difference": "vitrail.evaluation.paired",
    "softmax": "vitrail.evaluation.probabilities",
    "validated_sigmoid_temperature": "vitrail.evaluation.multilabel",
    "validated_temperature": "vitrail.evaluation.calibration",
    "wilson_interval": "vitrail.evaluation.intervals",
}

__all__ = [
    "accuracy_coverage_curve",
    "bootstrap_confusions",
    "classification_metrics",
    "expected_calibration_error",
    "fit_temperature",
    "mcnemar_exact",
    "multilabel_metrics",
    "paired_bootstrap",
    "paired_comparison",
    "reject_threshold",
    "reliability_bins",
    "sigmoid",
    "smallest_detectable_difference",
    "softmax",
    "validated_sigmoid_temperature",
    "validated_temperature",
    "wilson_interval",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
