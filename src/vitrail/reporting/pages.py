"""What every HTML report is made with: one file that needs nothing else, and pictures in it that are pixels alone."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vitrail.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Environment

SUFFIXES = (".html", ".htm")
SMALL_SIDE = 32  # below, pixels are shown as they are
THUMBNAIL_SIDE = 96  # pixels at the most


def check_report_path(path: Path) -> None:
    """Raise ConfigError unless an HTML file can be written at `path`."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} does not end in .html; name the report so")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} does not exist; make that folder first, or write elsewhere")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; write to a file in it")


def render(template: str, **content: Any) -> str:
    """The page of a template with this content, which is text whatever it holds."""
    text = _environment().get_template(template).render(**content)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a file's name may be of other bytes


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(content: bytes, kind: str) -> str:
    """The bytes of a picture as an address that holds it; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def is_small(pixels: np.ndarray) -> bool:
    """Whether an image (H, W, C) is to be shown pixel by pixel."""
    return max(pixels.shape[:2]) <= SMALL_SIDE


def thumbnail(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> str:
    """Pixels uint8 (H, W, C) as a data: URI, small ones to the bit; a mask of padding shows as transparency, white."""
    channels = pixels.shape[2]
    if channels in (2, 4):
        pixels = np.where(pixels[..., -1:] > 0, pixels[..., :-1], np.uint8(255))
    small = is_small(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    file = io.BytesIO()
    if small:
        image.save(file, "png", optimize=True)
    else:
        image.save(file, "jpeg", quality=85)
    return data_uri(file.getvalue(), "png" if small else "jpeg")
