"""One image in, one upright "L" or "RGB" Pillow image out: the same rule for training, prediction and serving.

- The EXIF (or XMP) orientation is applied, for HEIC its own; one that cannot be read counts as upright.
- 1-bit and 8-bit grey become "L"; 16-bit grey, and 32-bit integer grey within 0..65535, too, by value / 257, rounded.
- Transparency of any kind (LA, RGBA, a palette entry, a colour key) is composited onto white; grey stays grey.
- Palettes, CMYK, YCbCr, LAB and HSV become "RGB" as Pillow converts them; colour profiles are not applied.
- Of an animation or a multi-page file the first frame is taken.
- JPEG files larger than is needed are decoded at 1/2, 1/4 or 1/8 of their size, which takes a fraction of the time.
- Floating-point images, and integers outside 0..65535, are refused: their range is not known.
"""

from __future__ import annotations

import glob
import io
import os
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from vitrail.data.heif import HEAD_BYTES, is_heif, register_heif
from vitrail.errors import ConfigError, DataError

# Written out: Pillow also knows formats that start other programs (EPS) or accept almost any bytes (TGA).
SUFFIXES = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),
    "ICO": (".ico",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "MPO": (".mpo",),
    "PCX": (".pcx",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".bw"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
LEAST_SIDE = 512  # pixels of the shorter side that reading leaves at least; content hashes are of images read so
NOT_SURE_FOLDER = "not_sure"  # of `predict --sort`; no class of a data set
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_quiet_lock = threading.Lock()
_quiet_count = 0
_quiet_filters: warnings.catch_warnings | None = None


def read_image(
    source: str | Path | bytes | Image.Image | np.ndarray, name: str | None = None, at_least: int | None = LEAST_SIDE
) -> Image.Image:
    """The upright image of a file, of a file's bytes, of a Pillow image or of an array, in mode "L" or "RGB".

    A JPEG file is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that leaves `at_least` so many pixels of
    its shorter side; None decodes all of it. `preprocess.read_for` knows how many pixels a model needs.
    Arrays are uint8, (H, W) or (H, W, C) with C = 1, 3 or 4 (the fourth is alpha). A Pillow image is taken at the frame
    it stands at, and not changed. `name` is what an error calls the image; by default a file's path as given.
    Raises DataError with the reason if the image is missing, damaged, no image, or of a kind that has no known range.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "the image")
    if isinstance(source, np.ndarray):
        return _standardize(_from_array(source, name), name)
    if isinstance(source, str | Path):
        source = _read_bytes(source, name)
    if source == b"":
        raise DataError(f"{name} is not an image that can be read: it is empty")
    with _silence_pillow():
        try:
            if isinstance(source, Image.Image):
                image = source
            else:
                image = _open_file(io.BytesIO(source), name)
                _shrink(image, at_least)
            image.load()  # the whole of it, so that a truncated file is found here
            return _standardize(_turn_upright(image), name)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise almost anything on damaged files
            raise DataError(f"{name} is not an image that can be read: {_reason(error)}") from error


def read_shape(source: str | Path | bytes, name: str | None = None) -> tuple[int, int, int]:
    """(rows, columns, channels) of the upright image in a file, or in a file's bytes, at its full size.

    From its header alone: raises DataError if that cannot be read; the rest may be damaged still.
    """
    with open_image(source, name) as image:
        rows, columns = image.height, image.width
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    return (columns, rows, 1 if grey else 3) if turned else (rows, columns, 1 if grey else 3)


@contextmanager
def open_image(source: str | Path | bytes, name: str | None = None) -> Generator[Image.Image]:
    """The image in a file, or in a file's bytes, as Pillow has it when its header is read, and nothing decoded.

    Raises DataError with the reason for what cannot be opened, also if reading more of it within the block fails.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "the image")
    with _silence_pillow():
        try:
            opened = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
            with opened as file, _open_file(file, name) as image:
                yield image
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{name} is not an image that can be read: {_reason(error)}") from error


def list_images(paths: Sequence[str | Path]) -> list[Path]:
    """The image files that `paths` stand for, in the order given, each once.

    A file counts as it is, whatever its suffix; a folder gives the image files in it and below, sorted, hidden ones
    left out; a pattern (`*.png`, `photos/**`) the image files that match, sorted. What exists is never a pattern.
    Raises ConfigError for a path that does not exist and for a folder or pattern without an image.
    """
    found: dict[Path, None] = {}
    for given in paths:
        found.update(dict.fromkeys(_expand(given)))
    if not found:
        raise ConfigError("No image given; name image files, folders or patterns such as 'photos/*.jpg'")
    return list(found)


@contextmanager
def _silence_pillow() -> Generator[None, None, None]:
    """Keep Pillow's own warnings (odd metadata, large images) from leaking; safe in many threads at once.

    warnings.catch_warnings alone is not: two threads may restore each other's filters, for good.
    """
    global _quiet_count, _quiet_filters
    with _quiet_lock:
        if _quiet_count == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_count += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_count -= 1
            if _quiet_count == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)
                _quiet_filters = None


def _read_bytes(path: str | Path, name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist") from error
    except (OSError, ValueError) as error:
        reason = "it is a folder" if os.path.isdir(path) else getattr(error, "strerror", None) or str(error)
        raise DataError(f"{name} cannot be opened: {reason}") from error


def _open_file(file: BinaryIO, name: str) -> Image.Image:
    Image.init()
    if is_heif(file.read(HEAD_BYTES)):
        file.seek(0)
        register_heif(file.read(), name)
    file.seek(0)
    formats = [format_name for format_name in SUFFIXES if format_name in Image.OPEN]
    return Image.open(file, formats=formats)


def _shrink(image: Image.Image, at_least: int | None) -> None:
    """Have a JPEG file decoded at a part of its size, if as many pixels of the shorter side are left."""
    if at_least is None or not isinstance(image, JpegImageFile):
        return
    for scale in (8, 4, 2):
        if -(-min(image.size) // scale) >= at_least:
            image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
            return


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not is_image or array.dtype != np.uint8 or array.size == 0:
        raise DataError(
            f"{name} is an array of shape {array.shape} and dtype {array.dtype}; "
            "an image is uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
        )
    array = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(array))


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata is no reason to refuse good pixels
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _standardize(image: Image.Image, name: str) -> Image.Image:
    mode = image.mode
    if 0 in image.size:
        raise DataError(f"{name} is not an image that can be read: it has no pixels")
    if mode.startswith("I"):
        return _from_wide_grey(image, name)
    if mode == "F":
        raise DataError(f"{name} holds floating-point numbers; save it with 8 or 16 bits, or hand over uint8")
    target = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        image = image.convert("LA" if target == "L" else "RGBA")
        canvas = Image.new(target, image.size, "white")
        canvas.paste(image.convert(target), mask=image.getchannel("A"))
        return canvas
    plain = image.convert(target) if mode != target else image.copy()
    plain.info = {}  # else an orientation that is applied already would be applied again
    return plain


def _from_wide_grey(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name} holds values from {low} to {high}; grey images hold 0..255 or 0..65535")
    key = image.info.get("transparency")
    if isinstance(key, int):
        values[values == key] = 65535
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not in an image format that is known"
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"it has more than {limit:,} pixels, as a decompression bomb would"
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "it ends too early (truncated)"
    return f"it is damaged ({error})" if str(error) else "it is damaged"


def _expand(given: str | Path) -> list[Path]:
    path = Path(given)
    if os.path.isdir(path):
        files = _walk(path)
        if not files:
            raise ConfigError(f"There is no image file in {given}; it is searched for {_suffix_list()}")
        return files
    if os.path.exists(path):
        return [path]
    if not glob.has_magic(str(given)):
        raise ConfigError(f"{given} does not exist; name an image file, a folder or a pattern such as 'photos/*.jpg'")
    matches = (Path(match) for match in glob.glob(str(given), recursive=True))
    files = sorted((match for match in matches if _is_image(match) and match.is_file()), key=Path.as_posix)
    if not files:
        raise ConfigError(f"No image file matches {given}; patterns give files that end in {_suffix_list()}")
    return files


def _walk(folder: Path) -> list[Path]:
    files: list[Path] = []
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".") and _is_image(Path(name))]
    return sorted(files, key=Path.as_posix)


def _refuse(error: OSError) -> None:
    raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; make it readable, or leave it out")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _suffix_list() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
