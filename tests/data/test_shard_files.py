import gc
import hashlib
import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from loopback_files import LoopbackFiles

from vitrail.data import remote, shard_files
from vitrail.data.records import SourceError
from vitrail.data.remote import MissingError
from vitrail.data.shard_files import ShardReader, find_shard, open_shard

CONTENT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(shard_files, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(shard_files, "BLOCK_BYTES", 1000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def web():
    with LoopbackFiles({"a.tar": CONTENT}).serving() as served:
        yield served


@pytest.fixture(params=["path", "http", "memory"])
def shard(request, tmp_path):
    """10,240 bytes on this machine, at a web server, and in other storage."""
    if request.param == "http":
        place = request.getfixturevalue("web").url + "/a.tar"
    elif request.param == "memory":
        place = f"memory:///{uuid.uuid4().hex}.tar"
        with fsspec.open(place, "wb") as file:
            file.write(CONTENT)
    else:
        place = str(tmp_path / "a.tar")
        (tmp_path / "a.tar").write_bytes(CONTENT)
    return find_shard(place)


def part(shard, reader, offset, size):
    return reader.read(shard, offset, size, hashlib.sha256(CONTENT[offset : offset + size]).hexdigest())


def test_what_is_known_of_a_shard(shard):
    assert shard.size == len(CONTENT)
    assert shard == find_shard(shard.place)
    assert shard.version


def test_a_shard_that_is_not_there(tmp_path):
    with pytest.raises(MissingError, match=r"gone\.tar does not exist$"):
        find_shard(str(tmp_path / "gone.tar"))


def test_going_through_a_shard(shard):
    with open_shard(shard) as file:
        assert file.read(1500) == CONTENT[:1500]
        file.seek(9000)
        assert file.tell() == 9000
        assert file.read() == CONTENT[9000:]
        file.seek(10)
        assert file.read(3) == CONTENT[10:13]


def test_parts_in_any_order(shard):
    reader = ShardReader()
    for offset, size in [(0, 10), (10, 990), (1000, 10), (1900, 2200), (10_000, 240), (5, 0), (3, 10_000)]:
        assert part(shard, reader, offset, size) == CONTENT[offset : offset + size]


def test_parts_in_many_threads(shard):
    reader = ShardReader()
    places = [(offset * 37 % 9000, 400 + offset) for offset in range(100)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda place: part(shard, reader, *place), places))
    assert parts == [CONTENT[offset : offset + size] for offset, size in places]


def test_images_that_follow_one_another_are_read_in_blocks(web):
    shard, reader = find_shard(f"{web.url}/a.tar"), ShardReader()
    web.requests.clear()
    for offset in range(0, 10_000, 100):
        part(shard, reader, offset, 90)
    asked = [asked for _, asked in web.requests]
    assert asked[:3] == ["bytes=0-89", "bytes=0-999", "bytes=1000-1999"]
    assert len(asked) == 11


def test_images_in_any_order_are_read_one_by_one(web, monkeypatch):
    monkeypatch.setattr(shard_files, "BLOCK_BYTES", 100)
    shard, reader = find_shard(f"{web.url}/a.tar"), ShardReader()
    web.requests.clear()
    for offset in (9010, 4010, 7010, 310, 5010):
        part(shard, reader, offset, 50)
    assert [asked for _, asked in web.requests][:2] == ["bytes=9010-9059", "bytes=4010-4059"]
    assert len(web.requests) == 5


def test_files_stay_open_and_are_closed_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_files, "MAX_OPEN", 2)
    shards = []
    for number in range(4):
        (tmp_path / f"{number}.tar").write_bytes(CONTENT)
        shards.append(find_shard(str(tmp_path / f"{number}.tar")))
    opened: list[str] = []
    real = shard_files.io.FileIO

    class Counted(real):
        def __init__(self, path):
            opened.append(os.path.basename(path))
            super().__init__(path)

    monkeypatch.setattr(shard_files.io, "FileIO", Counted)
    reader = ShardReader()
    for number in (0, 0, 1, 0, 2, 0, 1, 3, 3):
        part(shards[number], reader, 0, 5)
    assert opened == ["0.tar", "1.tar", "2.tar", "1.tar", "3.tar"]
    kept = [file for _, file in reader._files.free]
    assert len(kept) == 2
    del reader
    gc.collect()
    assert all(file.closed for file in kept)


def test_a_shard_that_is_gone_is_named(shard, web, monkeypatch):
    if shard.place.startswith("http"):
        web.files.clear()
    elif shard.place.startswith("memory"):
        fsspec.filesystem("memory").rm(shard.place)
    else:
        os.unlink(shard.place)
    waited: list[float] = []
    monkeypatch.setattr(shard_files.time, "sleep", waited.append)
    with pytest.raises(SourceError, match=rf"^{shard.place} is gone; put it back$"):
        part(shard, ShardReader(), 0, 5)
    assert len(waited) == 2


def test_a_shard_that_is_away_for_a_moment(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(CONTENT)
    shard = find_shard(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar").rename(tmp_path / "b.tar")
    monkeypatch.setattr(shard_files.time, "sleep", lambda _: (tmp_path / "b.tar").rename(tmp_path / "a.tar"))
    assert part(shard, ShardReader(), 3, 5) == CONTENT[3:8]


def test_a_shard_that_was_changed_is_named(shard, web):
    reader = ShardReader()
    part(shard, reader, 0, 10)
    part(shard, reader, 20, 10)
    with fsspec.open(shard.place, "wb") if "http" not in shard.place else open(os.devnull, "wb") as file:
        file.write(CONTENT[::-1])
    web.files["a.tar"] = CONTENT[::-1]
    with pytest.raises(
        SourceError, match=rf"^{shard.place} was changed while it was in use; put the old file back, or"
    ):
        part(shard, reader, 4000, 10)


def test_a_shard_that_became_shorter_is_named(shard, web):
    with fsspec.open(shard.place, "wb") if "http" not in shard.place else open(os.devnull, "wb") as file:
        file.write(CONTENT[:100])
    web.files["a.tar"] = CONTENT[:100]
    with pytest.raises(SourceError, match=rf"^{shard.place} "):
        part(shard, ShardReader(), 90, 20)


def test_a_server_that_fails_is_named_after_its_own_tries(web):
    shard = find_shard(f"{web.url}/a.tar")
    web.statuses["a.tar"] = [503] * 99
    web.requests.clear()
    with pytest.raises(SourceError, match=r"a\.tar cannot be read, tried 3 times: the server answers HTTP 503 "):
        part(shard, ShardReader(), 0, 5)
    assert len(web.requests) == 3


def test_a_folder_called_as_a_shard_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(CONTENT)
    shard = find_shard(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar").unlink()
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(SourceError, match=r"a\.tar cannot be read: "):
        part(shard, ShardReader(), 0, 5)
