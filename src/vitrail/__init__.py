"""Vitrail trains, compares, explains and ships Vision Transformers on your own images.

import vitrail
run = vitrail.train("digits")
run.evaluate()["test"]["accuracy"]
vitrail.load(run.path).predict("seven.png").label
"""

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
    from vitrail.classifier import Classifier
    from vitrail.config import RunConfig
    from vitrail.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        ExportError,
        Interrupted,
        TrainingError,
        VitrailError,
    )
    from vitrail.explanations import Explanation
    from vitrail.predictions import Prediction

# `import vitrail` costs nothing: a name's module is imported when the name is first asked for.
_MODULES = {
    "CheckpointError": "vitrail.errors",
    "Classifier": "vitrail.classifier",
    "ConfigError": "vitrail.errors",
    "DataError": "vitrail.errors",
    "Explanation": "vitrail.explanations",
    "ExportError": "vitrail.errors",
    "Interrupted": "vitrail.errors",
    "Prediction": "vitrail.predictions",
    "Run": "vitrail.api.run",
    "RunConfig": "vitrail.config",
    "TrainingError": "vitrail.errors",
    "VitrailError": "vitrail.errors",
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
    "CheckpointError",
    "Classifier",
    "ConfigError",
    "DataError",
    "Explanation",
    "ExportError",
    "Interrupted",
    "Prediction",
    "Run",
    "RunConfig",
    "TrainingError",
    "VitrailError",
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
    if name == "__version__":
        from importlib.metadata import version

        return version("vitrail")
    if name == "sklearn":  # a module and no verb: vitrail.sklearn.ViTClassifier
        return import_module("vitrail.sklearn")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
