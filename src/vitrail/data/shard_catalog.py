"""The indexes of many shards: found beside them or in the cache, or made in one pass over each."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from vitrail.data.cache_entries import shards_root
from vitrail.data.records import SourceError
from vitrail.data.remote import MissingError, RefusedError, is_url, read_url
from vitrail.data.shard_files import Shard, ShardReader, find_shard, open_shard
from vitrail.data.shard_index import VERSION, Columns, ShardIndex, make_index, parse_index
from vitrail.errors import DataError, some

PROGRESS_SECONDS = 2.0
NUM_REQUESTS = 8  # at a time: they wait for a server, not for this machine

logger = logging.getLogger(__name__)

Indexed = tuple[Shard, ShardIndex]


def index_shards(places: Sequence[str], columns: Columns, num_workers: int) -> list[Indexed]:
    """The index of each of these shards. Those that have none that fits are read once, in `num_workers` threads.

    Raises DataError for shards that are missing, damaged or have no sample.
    """
    num_threads = NUM_REQUESTS if is_url(places[0]) else num_workers
    with ThreadPoolExecutor(num_threads) as pool:
        shards = _present(list(pool.map(_find, places)))
        known = list(pool.map(partial(_known, columns=columns), shards))
    missing = [shard for shard, index in zip(shards, known, strict=True) if index is None]
    made = _make_all(missing, columns, num_threads)
    return [(shard, made[shard.place] if index is None else index) for shard, index in zip(shards, known, strict=True)]


def _find(place: str) -> Shard | MissingError:
    try:
        return find_shard(place)
    except MissingError as error:
        return error


def _present(found: Sequence[Shard | MissingError]) -> list[Shard]:
    missing = [str(error) for error in found if isinstance(error, MissingError)]
    if missing:
        raise DataError(f"{some(missing)}; {len(found):,} shard{'s' * (len(found) != 1)} in all are needed")
    return [shard for shard in found if isinstance(shard, Shard)]


def _known(shard: Shard, columns: Columns) -> ShardIndex | None:
    """The index in the cache, else that beside the shard, if it fits."""
    kept = _cache_file(shard, columns)
    with suppress(OSError, UnicodeError):
        found = parse_index(kept.read_text(encoding="utf-8"), shard.size, shard.version, columns)
        if isinstance(found, ShardIndex):
            return found
        logger.warning("The index of %s in the cache %s; it is made anew", shard.shown, found)
    text, fits = _beside(shard)
    if text is None:
        return None
    found = parse_index(text, shard.size, None, columns) if fits else "is older than the shard"
    if isinstance(found, ShardIndex) and not _is_of(found, shard):
        found = "is of another shard"
    if isinstance(found, str):
        logger.warning("%s.index.json %s; it is not used", shard.shown, found)
        return None
    _keep(shard, columns, found)
    return found


def _beside(shard: Shard) -> tuple[str | None, bool]:
    """The text of the index that lies beside a shard, and whether it may be of the shard as it is."""
    try:
        if is_url(shard.place):
            path, mark, query = shard.place.partition("?")
            return read_url(f"{path}.index.json{mark}{query}").decode("utf-8", "replace"), True
        path = f"{shard.place}.index.json"
        fits = os.stat(path).st_mtime >= os.stat(shard.place).st_mtime
        return Path(path).read_text(encoding="utf-8", errors="replace"), fits
    except (OSError, MissingError, RefusedError):
        return None, False


def _is_of(index: ShardIndex, shard: Shard) -> bool:
    """Whether the first, a middle and the last image are those of the index; each is compared again when it is read."""
    reader, count = ShardReader(), len(index.members)
    for place in sorted({0, count // 2, count - 1} & {*range(count)}):
        try:
            reader.read(shard, index.offsets[place], index.sizes[place], index.digests[place])
        except SourceError:
            return False
    return True


def _cache_file(shard: Shard, columns: Columns) -> Path:
    place = shard.place if is_url(shard.place) else os.path.realpath(shard.place)
    key = json.dumps([VERSION, place, asdict(columns)])
    return shards_root() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _keep(shard: Shard, columns: Columns, index: ShardIndex) -> None:
    """Write the index into the cache; where that is not possible it is made again next time."""
    file = _cache_file(shard, columns)
    temporary = file.with_name(f".{file.stem}-{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(index.to_json(shard.size, shard.version, columns), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        logger.warning("The index of %s is not kept in %s: %s", shard.shown, file.parent, error.strerror or error)
        with suppress(OSError):
            temporary.unlink()


class _Stopped(Exception):
    """Another shard cannot be read, or the user has had enough."""


def _make_all(shards: Sequence[Shard], columns: Columns, num_threads: int) -> dict[str, ShardIndex]:
    """The indexes of these shards by their places, each kept as soon as it is made: what is broken off can go on."""
    read = dict.fromkeys((shard.place for shard in shards), 0)
    stopping = threading.Event()
    said = time.perf_counter()

    def make(shard: Shard) -> ShardIndex:
        def told(position: int) -> None:
            read[shard.place] = position
            if stopping.is_set():
                raise _Stopped

        with open_shard(shard) as file:
            index = make_index(file, shard.size, shard.shown, columns, told)
        read[shard.place] = shard.size
        _keep(shard, columns, index)
        return index

    with ThreadPoolExecutor(num_threads) as pool:
        futures: dict[str, Future[ShardIndex]] = {shard.place: pool.submit(make, shard) for shard in shards}
        try:
            waiting = {*futures.values()}
            while waiting:
                done, waiting = wait(waiting, PROGRESS_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                if waiting and time.perf_counter() - said > PROGRESS_SECONDS:
                    said = time.perf_counter()
                    _tell(shards, read, len(futures) - len(waiting))
            return {place: future.result() for place, future in futures.items()}
        finally:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _tell(shards: Sequence[Shard], read: dict[str, int], num_done: int) -> None:
    total = sum(shard.size for shard in shards)
    logger.info(
        "Reading shards once for their index: %s of %s, %.2f of %.2f GB",
        f"{num_done:,}",
        f"{len(shards):,}",
        sum(read.values()) / 1e9,
        total / 1e9,
    )
