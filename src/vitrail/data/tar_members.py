"""What stands where in a tar file, with everything that is wrong with the file found on the way."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from vitrail.errors import DataError

_BLOCK = 512  # bytes of a header; all that follows begins at a multiple of it
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A file in a tar: its name, where its bytes begin, how many there are; `unfit` says why it cannot be used."""

    name: str
    offset: int
    size: int
    unfit: str = ""


def list_members(file: BinaryIO, size: int, where: str) -> Iterator[Member]:
    """The files in a tar of `size` bytes, in their order; folders are left out. Links and the like are unfit.

    Raises DataError, with the byte, for a tar that is empty, compressed, cut off, damaged, or goes on after its end.
    """
    _check_kind(file.read(6), where)
    file.seek(0)
    at = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while True:
                member = archive.next()
                if member is None:
                    break
                # Else a million of them stay in memory; it is no public attribute, but in every version.
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                end = member.offset_data + (member.size if member.isreg() else 0)
                if end > size:
                    raise DataError(
                        f"{where} is cut off: it ends at byte {size:,}, within {_shown(member.name)}, "
                        f"which goes on to byte {end:,}; download or write it again"
                    )
                if archive.offset <= at:
                    raise DataError(f"{where} is damaged at byte {at:,}; download or write it again")
                at = archive.offset
                if not member.isdir():
                    yield Member(_shown(member.name), member.offset_data, member.size, _unfit(member))
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # tarfile raises almost anything on damaged files
        raise _damaged(error, at, size, where) from error
    _check_end(file, at, size, where)


def _check_kind(head: bytes, where: str) -> None:
    if not head:
        raise DataError(f"{where} is empty; download or write it again")
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(
                f"{where} is compressed, so that its images cannot be read one by one; unpack it to a plain .tar "
                f"with {command}"
            )


def _shown(name: str) -> str:
    """A member's name as text that can be written anywhere, also where its bytes are no UTF-8."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    while name.startswith("./"):
        name = name[2:]
    return name


def _unfit(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg() or member.issparse():
        return "no plain file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "a path that leads outside"
    return ""


def _damaged(error: Exception, at: int, size: int, where: str) -> DataError:
    if isinstance(error, OSError) and not isinstance(error, tarfile.TarError):
        return DataError(f"{where} cannot be read: {error.strerror or error}")
    if at == 0:
        return DataError(f"{where} is no tar file that can be read; download or write it again")
    kind = f"cut off: it ends at byte {size:,}" if "end of data" in str(error) else f"damaged at byte {at:,}"
    return DataError(f"{where} is {kind}; download or write it again")


def _check_end(file: BinaryIO, at: int, size: int, where: str) -> None:
    """Raise DataError unless what follows the last member is the end mark, and nothing after it.

    tarfile takes any header that it cannot read for the end, and does not look at what comes after.
    """
    file.seek(at)
    block = file.read(_BLOCK)
    if not block:
        logger.warning("%s has no end mark at byte %s; it may be cut off between two files", where, f"{at:,}")
    elif len(block) < _BLOCK:
        raise DataError(f"{where} is cut off: it ends at byte {size:,}; download or write it again")
    elif any(block):
        raise DataError(f"{where} is damaged at byte {at:,}; download or write it again")
    while block := file.read(2**20):
        if block.strip(b"\0"):
            raise DataError(
                f"{where} goes on after its end at byte {at:,}, as several tar files in one do; write it as one"
            )
