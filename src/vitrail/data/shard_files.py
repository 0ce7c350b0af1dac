"""The bytes of tar shards, on this machine or at URLs, read in any thread."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
import weakref
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO

from vitrail.data.records import SourceError
from vitrail.data.remote import MissingError, is_url, read_range, shown_url, url_facts
from vitrail.errors import DataError

NUM_TRIES, PAUSE_SECONDS = 3, 1.0  # of a shard that is gone, or changed: it may be about to be replaced
MAX_OPEN = 32  # files that are kept open while no thread reads them
BLOCK_BYTES = 2**22  # read from a URL at a time, where one image after another is read
MAX_BLOCKS = 8


@dataclass(frozen=True)
class Shard:
    """A tar file: its path or URL, its bytes, and what changes when it does: a time or a server's tag, "" if none."""

    place: str
    size: int
    version: str

    @property
    def shown(self) -> str:
        """The place as a message may show it."""
        return shown_url(self.place) if is_url(self.place) else self.place


def find_shard(place: str) -> Shard:
    """What is known of the shard at a path or URL. Raises DataError, MissingError if there is none."""
    if is_url(place):
        facts = url_facts(place)
        return Shard(place, facts.size, facts.version)
    try:
        status = os.stat(place)
    except FileNotFoundError as error:
        raise MissingError(f"{place} does not exist") from error
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror or error}") from error
    return Shard(place, status.st_size, str(status.st_mtime_ns))


def open_shard(shard: Shard) -> BinaryIO:
    """The shard as a file to go through from its beginning; one at a URL is read in large parts."""
    if is_url(shard.place):
        return io.BufferedReader(_UrlFile(shard), BLOCK_BYTES)
    try:
        return open(shard.place, "rb", buffering=2**20)
    except OSError as error:
        raise DataError(f"{shard.place} cannot be read: {error.strerror or error}") from error


class _UrlFile(io.RawIOBase):
    def __init__(self, shard: Shard) -> None:
        super().__init__()
        self.shard, self.at = shard, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.shard.size}[whence]
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = max(0, min(len(buffer), self.shard.size - self.at))
        buffer[:size] = read_range(self.shard.place, self.at, size)
        self.at += size
        return size


class ShardReader:
    """Reads parts of shards, in any thread, and makes sure that they are what they were when the index was made."""

    def __init__(self) -> None:
        self._files = _OpenFiles()
        self._blocks = _Blocks()

    def read(self, shard: Shard, offset: int, size: int, digest: str) -> bytes:
        """The bytes whose SHA-256 is `digest`.

        Raises SourceError, which names the shard, where it is gone, cannot be read or was changed, after some tries.
        """
        problem = ""
        for left in reversed(range(NUM_TRIES)):
            try:
                if is_url(shard.place):
                    content = self._blocks.read(shard, offset, size)
                else:
                    content = self._files.read(shard.place, offset, size)
                if hashlib.sha256(content).hexdigest() == digest:
                    return content
                problem = "was changed while it was in use; put the old file back, or start again with the new one"
            except (MissingError, FileNotFoundError):
                problem = "is gone; put it back"
            except DataError as error:  # tried already
                raise SourceError(str(error)) from error
            except OSError as error:
                problem = f"cannot be read: {error.strerror or error}"
            self._files.forget(shard.place)
            self._blocks.forget(shard.place)
            if left:
                time.sleep(PAUSE_SECONDS)
        raise SourceError(f"{shard.shown} {problem}")


class _OpenFiles:
    """Files that stay open from one reading to the next; each is used by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free: deque[tuple[str, io.FileIO]] = deque()  # that were not used for longest first
        weakref.finalize(self, _close_all, self.free)

    def read(self, path: str, offset: int, size: int) -> bytes:
        file = self._borrow(path)
        try:
            file.seek(offset)
            content = bytearray()
            while len(content) < size and (chunk := file.read(size - len(content))):
                content += chunk
        except BaseException:
            file.close()
            raise
        self._give_back(path, file)
        return bytes(content)

    def forget(self, path: str) -> None:
        """Open the file anew next time: another one may have taken its name."""
        with self.lock:
            closing = [file for name, file in self.free if name == path]
            kept = [entry for entry in self.free if entry[0] != path]
            self.free.clear()
            self.free.extend(kept)
        for file in closing:
            file.close()

    def _borrow(self, path: str) -> io.FileIO:
        with self.lock:
            for place, (name, file) in enumerate(self.free):
                if name == path:
                    del self.free[place]
                    return file
        return io.FileIO(path)

    def _give_back(self, path: str, file: io.FileIO) -> None:
        with self.lock:
            self.free.append((path, file))
            closing = self.free.popleft()[1] if len(self.free) > MAX_OPEN else None
        if closing is not None:
            closing.close()


def _close_all(files: deque[tuple[str, io.FileIO]]) -> None:
    for _, file in files:
        file.close()


class _Blocks:
    """Parts of shards at URLs: read in blocks where the images of a shard follow one another, else one by one.

    A first epoch goes through a shard from its beginning to its end, and one request for forty images is many times
    faster than forty; a streamed epoch takes images in any order, and would throw most of a block away.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self.touched: deque[tuple[str, int]] = deque(maxlen=MAX_BLOCKS)

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        first, last = offset // BLOCK_BYTES, max(offset, offset + size - 1) // BLOCK_BYTES
        with self.lock:
            recent = [number for place, number in self.touched if place == shard.place]
            follows = first in recent or first - 1 in recent
            if (shard.place, last) not in self.touched:
                self.touched.append((shard.place, last))
        if not follows:
            return read_range(shard.place, offset, size)
        blocks = [self._block(shard, number) for number in range(first, last + 1)]
        content = blocks[0] if first == last else b"".join(blocks)
        begin = offset - first * BLOCK_BYTES
        return content[begin : begin + size]

    def _block(self, shard: Shard, number: int) -> bytes:
        key = (shard.place, number)
        with self.lock:
            future, is_mine = self.blocks.get(key), False
            if future is None:
                future, is_mine = self.blocks.setdefault(key, Future()), True
            self.blocks.move_to_end(key)
            while len(self.blocks) > MAX_BLOCKS:
                self.blocks.popitem(last=False)
        if is_mine:
            start = number * BLOCK_BYTES
            try:
                future.set_result(read_range(shard.place, start, min(BLOCK_BYTES, shard.size - start)))
            except BaseException as error:
                with self.lock:
                    self.blocks.pop(key, None)
                future.set_exception(error)
        return future.result()

    def forget(self, place: str) -> None:
        """Read the shard anew next time."""
        with self.lock:
            for key in [key for key in self.blocks if key[0] == place]:
                del self.blocks[key]
