"""Models written for other programs: a format -> the module that writes it, imported when it is asked for."""

from __future__ import annotations

FORMATS: dict[str, str] = {
    "timm": "vitrail.exporting.timm",
    "huggingface": "vitrail.exporting.huggingface",
}
