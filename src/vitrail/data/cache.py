"""Decoded images on disk, so that the second start reads no image that has not changed.

One folder a set of images and a model's size, in the user's cache folder or in $VITRAIL_CACHE: index.json says which
image each row of the mapped file pixels-* is, and what its source's stamp was. While it is made, rows and what is known
of them are appended to building.pixels and building.jsonl, from which a later start goes on. Deleting any of it costs
only time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.preprocess import Preprocess
from vitrail.data.records import Stamp
from vitrail.data.thumbnails import KEPT_BYTES

VERSION = 2  # of what stands in an entry, and of how images are read: raise it when either changes

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

    def to_json(self) -> dict[str, Any]:
        """As JSON has it: names as they are, numbers and hashes packed."""
        hashes = b"".join(bytes(32) if content is None else bytes.fromhex(content) for content in self.contents)
        packed = {
            "stamps": np.array(self.stamps, "<i8").tobytes(),
            "contents": hashes,
            "thumbnails": b"".join(self.thumbnails),
        }
        text = {key: base64.b64encode(zlib.compress(value, 1)).decode() for key, value in packed.items()}
        return {"names": self.names, "errors": self.errors, **text}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Known:
        """What `to_json` wrote. Raises ValueError, KeyError or TypeError for something else."""
        packed = {key: zlib.decompress(base64.b64decode(values[key])) for key in ("stamps", "contents", "thumbnails")}
        names, errors = list(values["names"]), dict(values["errors"])
        stamps = np.frombuffer(packed["stamps"], "<i8").reshape(-1, 3).tolist()
        contents = [packed["contents"][start : start + 32].hex() for start in range(0, len(packed["contents"]), 32)]
        joined = packed["thumbnails"]
        small = [joined[start : start + KEPT_BYTES] for start in range(0, len(joined), KEPT_BYTES)]
        if not len(names) == len(stamps) == len(contents) == len(small):
            raise ValueError("not one of each for an image")
        known = [None if name in errors else content for name, content in zip(names, contents, strict=True)]
        return cls(names, [(size, modified, changed) for size, modified, changed in stamps], known, small, errors)


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
        self.read()

    def read(self) -> None:
        """Look at what lies there now."""
        self.known = Known()
        self.pixels: np.ndarray | None = None
        index = self.folder / "index.json"
        try:
            values: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
            if values["version"] != VERSION:
                logger.warning("The decoded images in %s are of another version; they are made anew", self.folder)
                return
            known = Known.from_json(values)
            if values["pixels"] is not None:
                shape = (known.num_readable, *self.preprocess.shape)
                self.pixels = _mapped(self.folder / values["pixels"], shape)
            self.known = known
        except FileNotFoundError as error:
            if index.exists():
                logger.warning("The decoded images in %s are damaged (%s); they are made anew", self.folder, error)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            logger.warning("The decoded images in %s are damaged (%s); they are made anew", self.folder, error)
        else:
            with contextlib.suppress(OSError):
                os.utime(index)  # what was not used for longest is taken away first

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
        """Keep this instead: `pixels` has a row for each readable image, in their order. Raises OSError."""
        file = None
        if pixels is not None:
            file = self.folder / f"pixels-{hashlib.sha256(''.join(map(str, known.contents)).encode()).hexdigest()[:16]}"
            self.pixels = None
            if not file.exists() or file.stat().st_size != pixels.stat().st_size:
                pixels.replace(file)
        index = {
            "version": VERSION,
            "source": self.source,
            "preprocess": self.preprocess.model_dump(mode="json"),
            "pixels": None if file is None else file.name,
            **known.to_json(),
        }
        temporary = self.folder / "index.json.tmp"
        with temporary.open("w", encoding="ascii") as stream:
            json.dump(index, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.folder / "index.json")
        for old in [*self.folder.glob("pixels-*"), *self.folder.glob("building.*")]:
            if old != file:
                with contextlib.suppress(OSError):  # Windows keeps a file that another process reads
                    old.unlink()
        self.read()


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The file as an array that is read when it is looked at. Raises ValueError if it has another size."""
    size = int(np.prod(shape, dtype=np.int64))
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes in place of {size:,}")
    if size == 0:
        return np.zeros(shape, np.uint8)
    return np.memmap(path, np.uint8, "r", shape=shape)
