"""HEIC and HEIF photographs, which Pillow opens with the help of pi_heif, an extra of its own.

pi_heif decodes only; pillow_heif would bring an encoder under the GPL.
"""

from __future__ import annotations

from vitrail.errors import DataError

HEAD_BYTES = 12
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})


def is_heif(head: bytes) -> bool:
    """Whether a file that begins with `head`, its first HEAD_BYTES, is HEIC or HEIF; AVIF may begin so too."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def register_heif(data: bytes, name: str) -> None:
    """Let Pillow open `data`, the whole of a HEIF file. Nothing is done for AVIF, which Pillow opens by itself.

    Raises DataError if pi_heif is not installed, or would not survive what is damaged in the file.
    """
    if {b"avif", b"avis"} & _brands(data):
        return
    try:
        from pi_heif import register_heif_opener
    except ImportError as error:
        raise DataError(
            f"{name} is a HEIC or HEIF image, which needs a library that is not installed; "
            "install it with: pip install 'vitrail[heic]'"
        ) from error
    register_heif_opener()
    if not _has_readable_items(data):
        raise DataError(f"{name} is not an image that can be read: it is damaged (its list of items is not text)")


def _brands(data: bytes) -> set[bytes]:
    size = int.from_bytes(data[:4], "big")
    return {data[place : place + 4] for place in range(16, min(size, len(data)), 4)}


def _has_readable_items(data: bytes) -> bool:
    """Whether types and names of the items that a HEIF file lists are text.

    pi_heif 1.4 ends the whole process where the type of its metadata is not: a segmentation fault, no exception.
    """
    for kind, start, end in _boxes(data, 0, len(data)):
        place = data.find(b"infe", start, end) if kind == b"meta" else -1
        while place >= 0:
            size, version = int.from_bytes(data[place - 4 : place], "big"), data[place + 4 : place + 5]
            item = data[place + (12 if version < b"\x03" else 14) : min(place - 4 + size, end)]
            if not item.isascii() and not _is_text(item):
                return False
            place = data.find(b"infe", place + 4, end)
    return True


def _boxes(data: bytes, place: int, end: int) -> list[tuple[bytes, int, int]]:
    """The boxes of an ISO base media file at one level: type, start and end of the content (ISO/IEC 14496-12, 4.2)."""
    found: list[tuple[bytes, int, int]] = []
    while place + 8 <= end:
        size, header = int.from_bytes(data[place : place + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        after = end if size == 0 else place + size
        if after < place + header:
            break
        found.append((data[place + 4 : place + 8], place + header, min(after, end)))
        place = after
    return found


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
