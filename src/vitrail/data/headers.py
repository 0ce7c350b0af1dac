"""What image files say of themselves before their pixels: size, mode, orientation, time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vitrail.data.images import open_image

_ORIENTATION, _TIME, _CAMERA = 0x0112, 0x0132, 0x0110  # tags of EXIF
_CAMERA_FOLDER, _TIME_TAKEN = 0x8769, 0x9003
_LYING = (5, 6, 7, 8)  # orientations whose rows are stored as columns


@dataclass(frozen=True)
class Header:
    """The size of the upright image, Pillow's mode of the stored one, and what EXIF (or XMP) says.

    `orientation` is 1..8, where 1 is upright; `exif_time` is when the picture was taken, else when it was last
    changed, as the camera wrote it: "2024:05:31 17:02:11"; `camera` is the camera's model.
    """

    rows: int
    columns: int
    mode: str
    orientation: int = 1
    exif_time: str | None = None
    camera: str | None = None


def read_header(source: str | Path | bytes, name: str | None = None) -> Header:
    """The header of a file, or of a file's bytes; no pixels are decoded, and metadata behind them is not looked for.

    Damaged metadata counts as none. Raises DataError, with the reason, if there is no image; its pixels may still be
    damaged. `name` is what an error calls the image.
    """
    with open_image(source, name) as image:
        orientation, time, camera = _read_exif(image)
        width, height = image.size
        if orientation in _LYING:
            width, height = height, width
        return Header(height, width, image.mode, orientation, time, camera)


def _read_exif(image: Image.Image) -> tuple[int, str | None, str | None]:
    try:
        tags = Image.Image.getexif(image)  # PNG's own would decode the pixels to look behind them
        orientation, taken = tags.get(_ORIENTATION), tags.get_ifd(_CAMERA_FOLDER).get(_TIME_TAKEN, tags.get(_TIME))
        time, camera = (value.strip(" \0") if isinstance(value, str) else "" for value in (taken, tags.get(_CAMERA)))
    except Exception:  # as read_image: no reason to refuse good pixels
        return 1, None, None
    turned = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return turned, time or None, camera or None
