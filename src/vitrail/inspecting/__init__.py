"""Inspecting: the paper's figures of a model itself, with what is unusual in this one, as pictures and numbers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.inspecting.images import InspectionImages, inspection_folder, inspection_images
    from vitrail.inspecting.inspection import Inspection, InspectionFigure, inspect_model

_MODULES = {
    "Inspection": "vitrail.inspecting.inspection",
    "InspectionFigure": "vitrail.inspecting.inspection",
    "InspectionImages": "vitrail.inspecting.images",
    "inspect_model": "vitrail.inspecting.inspection",
    "inspection_folder": "vitrail.inspecting.images",
    "inspection_images": "vitrail.inspecting.images",
}

__all__ = [
    "Inspection",
    "InspectionFigure",
    "InspectionImages",
    "inspect_model",
    "inspection_folder",
    "inspection_images",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
