"""Decoded images on disk, so that the second start reads no image that has not changed.

One folder a set of images and a model's size, in the user's cache folder or in $VITRAIL_CACHE. Its small index.json
names the others: pixels-* with a row for each readable image, images-*.json with their names, and images-*.bin with the
stamps, content hashes and thumbnails. Each making gives them new names, as what another process has mapped cannot be
replaced everywhere. While it is made, rows and what is known of them are appended to building.pixels and
building.jsonl, from which a later start goes on. Deleting any of it costs only time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import secrets
import zlib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, AnyStr

import numpy as np

from vitrail.data.preprocess import Preprocess
from vitrail.data.records import Stamp
from vitrail.data.thumbnails import KEPT_BYTES

VERSION = 3  # of what stands in an entry, and of how images are read: raise it when either changes
CHECKED_BYTES = 2**28  # so many pixels are summed when they are opened, in a quarter of a second; larger files are not
HASH_BYTES, STAMP_BYTES = 32, 24

opened: set[Path] = set()  # the folders of all caches that this process has looked at

logger = logging.getLogger(__name__)


def stamp_of(path: str | Path) -> Stamp:
    """What changes when a file changes, without reading it. Raises OSError where there is no file."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def cache_root() -> Path:
    """Where decoded images are kept: below $VITRAIL_CACHE, else in the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("VITRAIL_CACHE") or platformdirs.user_cache_dir("vitrail", appauthor=False), "images")


@dataclass(eq=False)
class Known:
    """What is known of images that were read, in their order: stamp, content hash and thumbnail, or the error."""

    names: list[str] = field(default_factory=list[str])
    stamps: list[Stamp] = field(default_factory=list[Stamp])
    contents: list[str | None] = field(default_factory=list[str | None])
    thumbnails: list[bytes] = field(default_factory=list[bytes])
    errors: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def num_readable(self) -> int:
        """How many of them have pixels."""
        return len(self.names) - len(self.errors)

    def extend(self, part: Known) -> None:
        """More images, after those that are there."""
        self.names += part.names
        self.stamps += part.stamps
        self.contents += part.contents
        self.thumbnails += part.thumbnails
        self.errors |= part.errors

    def pack(self) -> dict[str, bytes]:
        """All but names and errors, as bytes of one length an image."""
        hashes = "".join("00" * HASH_BYTES if content is None else content for content in self.contents)
        return {
            "stamps": np.array(self.stamps, "<i8").tobytes(),
            "contents": bytes.fromhex(hashes),
            "thumbnails": b"".join(self.thumbnails),
        }

    @classmethod
    def unpack(cls, named: Mapping[str, Any], stamps: bytes, contents: bytes, thumbnails: list[bytes]) -> Known:
        """What `pack` gave, with names and errors. Raises ValueError, KeyError or TypeError for something else."""
        names, errors = list(named["names"]), dict(named["errors"])
        numbers = np.frombuffer(stamps, "<i8").reshape(-1, 3)
        hashes = _cut(contents.hex(), 2 * HASH_BYTES)
        if not len(names) == len(numbers) == len(hashes) == len(thumbnails):
            raise ValueError("not one of each for an image")
        known = [None if name in errors else content for name, content in zip(names, hashes, strict=True)]
        return cls(names, list(zip(*numbers.T.tolist(), strict=True)), known, thumbnails, errors)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it: names as they are, numbers and hashes packed."""
        text = {key: base64.b64encode(zlib.compress(value, 1)).decode() for key, value in self.pack().items()}
        return {"names": self.names, "errors": self.errors, **text}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Known:
        """What `to_json` wrote. Raises ValueError, KeyError or TypeError for something else."""
        packed = {key: zlib.decompress(base64.b64decode(values[key])) for key in ("stamps", "contents", "thumbnails")}
        return cls.unpack(values, packed["stamps"], packed["contents"], _cut(packed["thumbnails"], KEPT_BYTES))


class ImageCache:
    """The decoded images of one set at one size: what is `known`, and the `pixels` of those that can be read.

    Whatever is wrong with its files, it is then empty, and that is said. `pixels` is None where only their hashes are
    known, and where nothing is.
    """

    def __init__(self, source: str, preprocess: Preprocess) -> None:
        """Open the cache of the images that `source` names, such as a folder's real path and a split."""
        self.source, self.preprocess = source, preprocess
        key = json.dumps([source, preprocess.model_dump(mode="json")])
        self.folder = cache_root() / hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        opened.add(self.folder)
        self._said = False
        self.read()

    def read(self) -> None:
        """Look at what lies there now."""
        self.known = Known()
        self.pixels: np.ndarray | None = None
        text = None
        try:
            text = self._index_text()
            if text is None:
                return
            values: dict[str, Any] = json.loads(text)
            if values["version"] != VERSION:
                self._warn("are of another version")
                return
            known = self._read_known(values)
            if values["pixels"] is not None:
                pixels = _mapped(self.folder / values["pixels"], (known.num_readable, *self.preprocess.shape))
                if pixels.size <= CHECKED_BYTES:
                    _check(zlib.crc32(pixels.reshape(-1).data), values["pixels"], values)
                self.pixels = pixels
            self.known = known
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, FileNotFoundError) and self._index_text() != text:
                self.read()  # another process has made it anew, or taken it away, meanwhile
            else:
                self._warn(f"are damaged ({error})")
        else:
            with contextlib.suppress(OSError):
                os.utime(self.folder / "index.json")  # what was not used for longest is taken away first

    def _index_text(self) -> str | None:
        try:
            return (self.folder / "index.json").read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None  # where it cannot be written either, that is said then

    def _warn(self, what: str) -> None:
        if not self._said:  # it is looked at again before it is made
            logger.warning("The decoded images in %s %s; they are made anew", self.folder, what)
        self._said = True

    def _read_known(self, values: Mapping[str, Any]) -> Known:
        """What the index's other files say. Raises OSError, ValueError, KeyError or TypeError if they are damaged."""
        text = (self.folder / values["names"]).read_bytes()
        _check(zlib.crc32(text), values["names"], values)
        named: dict[str, Any] = json.loads(text)
        number, thumbnails = len(named["names"]), list[bytes]()
        with (self.folder / values["packed"]).open("rb") as file:
            stamps, contents = file.read(STAMP_BYTES * number), file.read(HASH_BYTES * number)
            checksum = zlib.crc32(contents, zlib.crc32(stamps))
            while block := file.read(KEPT_BYTES * 4096):  # what is cut is not in memory twice
                checksum = zlib.crc32(block, checksum)
                thumbnails += _cut(block, KEPT_BYTES)
        _check(checksum, values["packed"], values)
        return Known.unpack(named, stamps, contents, thumbnails)

    @property
    def rows(self) -> dict[str, int]:
        """The row of each image that can be read."""
        readable = (name for name in self.known.names if name not in self.known.errors)
        return {name: row for row, name in enumerate(readable)}

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Alone with this cache; where another process makes it, wait until that is done. Raises OSError."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("Another process reads these images; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def write(self, known: Known, pixels: Path | None) -> None:
        """Keep this instead: `pixels`, which is moved, has a row for each readable image, in order. Raises OSError."""
        making = secrets.token_hex(8)
        file, names, packed = (
            self.folder / name.format(making) for name in ("pixels-{}", "images-{}.json", "images-{}.bin")
        )
        temporary = self.folder / "index.json.tmp"
        self.pixels = None
        try:
            checksums = {
                names.name: _write(names, [json.dumps({"names": known.names, "errors": known.errors}).encode("ascii")]),
                packed.name: _write(packed, known.pack().values()),
            }
            mapped = None
            if pixels is not None:
                shape = (known.num_readable, *self.preprocess.shape)
                pixels.replace(file)
                try:
                    mapped = _mapped(file, shape)
                except ValueError as error:
                    raise OSError(str(error)) from error
                checksums[file.name] = zlib.crc32(mapped.reshape(-1).data) if mapped.size <= CHECKED_BYTES else 0
            index = {
                "version": VERSION,
                "source": self.source,
                "preprocess": self.preprocess.model_dump(mode="json"),
                "num_images": len(known.names),
                "pixels": None if mapped is None else file.name,
                "names": names.name,
                "packed": packed.name,
                "checksums": checksums,
            }
            _write(temporary, [json.dumps(index).encode("ascii")])
            temporary.replace(self.folder / "index.json")
        except OSError:
            _remove([file, names, packed, temporary])
            raise
        patterns = ("pixels-*", "images-*", "building.*")
        old = {path for pattern in patterns for path in self.folder.glob(pattern)}
        _remove(old - {file, names, packed})
        self.known, self.pixels = known, mapped


def _write(path: Path, parts: Iterable[bytes]) -> int:
    """Write these bytes, safely on the disk, and give their checksum."""
    checksum = 0
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            checksum = zlib.crc32(part, checksum)
        file.flush()
        os.fsync(file.fileno())
    return checksum


def _cut(joined: AnyStr, length: int) -> list[AnyStr]:
    return [joined[start : start + length] for start in range(0, len(joined), length)]


def _check(checksum: int, name: str, values: Mapping[str, Any]) -> None:
    if checksum != values["checksums"][name]:
        raise ValueError(f"{name} has another checksum")


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # Windows keeps a file that another process reads
            path.unlink()


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The file as an array that is read when it is looked at. Raises ValueError if it has another size."""
    size = int(np.prod(shape, dtype=np.int64))
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes in place of {size:,}")
    if size == 0:
        return np.zeros(shape, np.uint8)
    return np.memmap(path, np.uint8, "r", shape=shape)
