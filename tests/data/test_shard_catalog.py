import json
import os

import pytest
from loopback_files import LoopbackFiles
from tar_shards import samples, write_index, write_shard

from vitrail.data import remote, shard_catalog, shard_files
from vitrail.data.shard_catalog import index_shards
from vitrail.data.shard_index import Columns
from vitrail.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(shard_files, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def passes(monkeypatch):
    """The shards that were gone through to make their indexes."""
    made: list[str] = []
    real = shard_catalog.make_index

    def make(file, size, where, columns, told):
        made.append(os.path.basename(where))
        return real(file, size, where, columns, told)

    monkeypatch.setattr(shard_catalog, "make_index", make)
    return made


def write_two(folder):
    return [str(write_shard(folder / f"{number}.tar", samples(3, first=3 * number))) for number in range(2)]


def index(places, **columns):
    return [found for _, found in index_shards(places, Columns(**columns), 2)]


def test_indexes_are_made_once(tmp_path, passes, caplog):
    places = write_two(tmp_path)
    made = index(places)
    assert [found.members[0] for found in made] == ["00000.png", "00003.png"]
    assert index(places) == made
    assert sorted(passes) == ["0.tar", "1.tar"]
    assert not caplog.messages


def test_a_shard_that_changed_is_indexed_anew(tmp_path, passes, caplog):
    places = write_two(tmp_path)
    index(places)
    write_shard(tmp_path / "1.tar", samples(3, first=6))
    os.utime(tmp_path / "1.tar", (9, 9))
    assert index(places)[1].members[0] == "00006.png"
    assert sorted(passes) == ["0.tar", "1.tar", "1.tar"]
    assert caplog.messages == [f"The index of {places[1]} in the cache is older than the shard; it is made anew"]


def test_other_columns_have_other_indexes(tmp_path, passes):
    place = str(write_shard(tmp_path / "a.tar", {"a.jpg": b"1", "a.cls": "0", "a.fine.cls": "5"}))
    assert [index([place], label=label)[0].labels for label in (None, "fine.cls", None)] == [[0], [5], [0]]
    assert len(passes) == 2


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_index_is_made_anew(tmp_path, passes, caplog, content):
    places = write_two(tmp_path)[:1]
    made = index(places)
    (file,) = (tmp_path / "cache" / "shards").iterdir()
    file.write_text(content, encoding="utf-8")
    assert index(places) == made
    assert caplog.messages == [f"The index of {places[0]} in the cache is damaged; it is made anew"]
    assert index(places) == made
    assert len(passes) == 2


def test_an_older_version_is_made_anew(tmp_path, passes, caplog):
    places = write_two(tmp_path)[:1]
    made = index(places)
    (file,) = (tmp_path / "cache" / "shards").iterdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 0}), encoding="utf-8")
    assert index(places) == made
    assert "in the cache is of another version of Vitrail; it is made anew" in caplog.messages[0]


def test_an_index_beside_the_shard_is_used(tmp_path, passes):
    places = write_two(tmp_path)
    beside = write_index(tmp_path / "0.tar")
    found = index(places)
    assert passes == ["1.tar"]
    assert found[0].labels == [0, 1, 2]
    beside.unlink()
    assert index(places) == found
    assert passes == ["1.tar"]


def test_an_index_beside_the_shard_that_is_older_is_not_used(tmp_path, passes, caplog):
    places = write_two(tmp_path)[:1]
    beside = write_index(tmp_path / "0.tar")
    os.utime(beside, (9, 9))
    index(places)
    assert passes == ["0.tar"]
    assert caplog.messages == [f"{places[0]}.index.json is older than the shard; it is not used"]


def test_shards_at_urls(tmp_path, passes):
    write_two(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")}
    files["1.tar.index.json"] = write_index(tmp_path / "1.tar").read_bytes()
    with LoopbackFiles(files).serving() as web:
        places = [f"{web.url}/{number}.tar" for number in range(2)]
        found = index(places)
        assert [one.labels for one in found] == [[0, 1, 2]] * 2
        assert passes == ["0.tar"]
        asked = [asked for name, asked in web.requests if name == "0.tar"]  # its size, then all of it at once
        assert asked == ["bytes=0-0", f"bytes=0-{len(files['0.tar']) - 1}"]
        web.requests.clear()
        assert index(places) == found
        assert [asked for _, asked in web.requests] == ["bytes=0-0"] * 2
        web.files["1.tar"] = files["0.tar"]
        assert index(places)[1].members[0] == "00000.png"


def test_all_shards_that_are_missing_are_named(tmp_path):
    with LoopbackFiles({"0.tar": b""}).serving() as web:
        message = rf"^{web.url}/1\.tar does not exist, {web.url}/2\.tar does not exist; 3 shards in all are needed$"
        with pytest.raises(DataError, match=message):
            index([f"{web.url}/{number}.tar" for number in range(3)])


def test_a_shard_that_is_damaged_stops_the_others(tmp_path, monkeypatch):
    places = write_two(tmp_path)
    (tmp_path / "1.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:1100])
    with pytest.raises(DataError, match=r"1\.tar is cut off: it ends at byte 1,100"):
        index(places)


def test_where_the_disk_is_full_the_index_is_made_each_time(tmp_path, passes, caplog, files_of_at_most):
    places = write_two(tmp_path)[:1]
    with files_of_at_most(100):
        made = index(places)
    assert len(made[0].members) == 3
    assert caplog.messages[0].startswith(f"The index of {places[0]} is not kept in ")
    assert not list((tmp_path / "cache" / "shards").iterdir())
    assert index(places) == made
    assert len(passes) == 2


def test_long_work_is_shown(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shard_catalog, "PROGRESS_SECONDS", 0.0)
    caplog.set_level("INFO", "vitrail")
    index_shards(write_two(tmp_path), Columns(), 1)
    assert "Reading shards once for their index: 0 of 2, 0.00 of 0.00 GB" in caplog.messages
