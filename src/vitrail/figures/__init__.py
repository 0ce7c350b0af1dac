"""Arrays in, matplotlib figures out; nothing here touches pyplot or any other state of matplotlib."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.figures.average_precision import draw_average_precision
    from vitrail.figures.confusion import draw_confusion
    from vitrail.figures.coverage import draw_coverage
    from vitrail.figures.curves import draw_curves
    from vitrail.figures.png import save_figure
    from vitrail.figures.predictions import draw_predictions
    from vitrail.figures.preview import draw_preview
    from vitrail.figures.reliability import draw_reliability
    from vitrail.figures.samples import draw_samples

# Matplotlib takes longer to import than most commands take to answer, so a name is fetched when it is asked for.
_MODULES = {
    "draw_average_precision": "vitrail.figures.average_precision",
    "draw_confusion": "vitrail.figures.confusion",
    "draw_coverage": "vitrail.figures.coverage",
    "draw_curves": "vitrail.figures.curves",
    "draw_predictions": "vitrail.figures.predictions",
    "draw_preview": "vitrail.figures.preview",
    "draw_reliability": "vitrail.figures.reliability",
    "draw_samples": "vitrail.figures.samples",
    "save_figure": "vitrail.figures.png",
}

__all__ = [
    "draw_average_precision",
    "draw_confusion",
    "draw_coverage",
    "draw_curves",
    "draw_predictions",
    "draw_preview",
    "draw_reliability",
    "draw_samples",
    "save_figure",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
