"""Arrays in, matplotlib figures out; nothing here touches pyplot or any other state of matplotlib."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.figures.attention_distance import draw_attention_distance
    from vitrail.figures.attention_entropy import draw_attention_entropy
    from vitrail.figures.average_precision import draw_average_precision
    from vitrail.figures.confusion import draw_confusion
    from vitrail.figures.coverage import draw_coverage
    from vitrail.figures.curves import draw_curves
    from vitrail.figures.embeddings import draw_embeddings
    from vitrail.figures.faithfulness import draw_faithfulness
    from vitrail.figures.filters import draw_filters
    from vitrail.figures.layer_probes import draw_layer_probes
    from vitrail.figures.layer_similarity import draw_layer_similarity
    from vitrail.figures.overlay import draw_overlay, paint_overlay
    from vitrail.figures.png import save_figure
    from vitrail.figures.positions import draw_positions
    from vitrail.figures.predictions import draw_predictions
    from vitrail.figures.preview import draw_preview
    from vitrail.figures.reliability import draw_reliability
    from vitrail.figures.samples import draw_samples
    from vitrail.figures.token_norms import draw_token_norms

# Matplotlib takes longer to import than most commands take to answer, so a name is fetched when it is asked for.
_MODULES = {
    "draw_attention_distance": "vitrail.figures.attention_distance",
    "draw_attention_entropy": "vitrail.figures.attention_entropy",
    "draw_average_precision": "vitrail.figures.average_precision",
    "draw_confusion": "vitrail.figures.confusion",
    "draw_coverage": "vitrail.figures.coverage",
    "draw_curves": "vitrail.figures.curves",
    "draw_embeddings": "vitrail.figures.embeddings",
    "draw_faithfulness": "vitrail.figures.faithfulness",
    "draw_filters": "vitrail.figures.filters",
    "draw_layer_probes": "vitrail.figures.layer_probes",
    "draw_layer_similarity": "vitrail.figures.layer_similarity",
    "draw_overlay": "vitrail.figures.overlay",
    "draw_positions": "vitrail.figures.positions",
    "draw_predictions": "vitrail.figures.predictions",
    "draw_preview": "vitrail.figures.preview",
    "draw_reliability": "vitrail.figures.reliability",
    "draw_samples": "vitrail.figures.samples",
    "draw_token_norms": "vitrail.figures.token_norms",
    "paint_overlay": "vitrail.figures.overlay",
    "save_figure": "vitrail.figures.png",
}

__all__ = [
    "draw_attention_distance",
    "draw_attention_entropy",
    "draw_average_precision",
    "draw_confusion",
    "draw_coverage",
    "draw_curves",
    "draw_embeddings",
    "draw_faithfulness",
    "draw_filters",
    "draw_layer_probes",
    "draw_layer_similarity",
    "draw_overlay",
    "draw_positions",
    "draw_predictions",
    "draw_preview",
    "draw_reliability",
    "draw_samples",
    "draw_token_norms",
    "paint_overlay",
    "save_figure",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
