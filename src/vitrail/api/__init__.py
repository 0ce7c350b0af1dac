"""The verbs: one function each, composed of what the other modules do."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.api.answers import embed, evaluate, knn, linear_probe, predict
    from vitrail.api.data import audit
    from vitrail.api.history import difference, list_runs
    from vitrail.api.inside import check_methods, explain, inspect, report
    from vitrail.api.models import create_model, export, list_models, load, push
    from vitrail.api.run import Run
    from vitrail.api.training import train

_MODULES = {
    "Run": "vitrail.api.run",
    "audit": "vitrail.api.data",
    "check_methods": "vitrail.api.inside",
    "create_model": "vitrail.api.models",
    "difference": "vitrail.api.history",
    "embed": "vitrail.api.answers",
    "evaluate": "vitrail.api.answers",
    "explain": "vitrail.api.inside",
    "export": "vitrail.api.models",
    "inspect": "vitrail.api.inside",
    "knn": "vitrail.api.answers",
    "linear_probe": "vitrail.api.answers",
    "list_models": "vitrail.api.models",
    "list_runs": "vitrail.api.history",
    "load": "vitrail.api.models",
    "predict": "vitrail.api.answers",
    "push": "vitrail.api.models",
    "report": "vitrail.api.inside",
    "train": "vitrail.api.training",
}

__all__ = [
    "Run",
    "audit",
    "check_methods",
    "create_model",
    "difference",
    "embed",
    "evaluate",
    "explain",
    "export",
    "inspect",
    "knn",
    "linear_probe",
    "list_models",
    "list_runs",
    "load",
    "predict",
    "push",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
