"""vitrail cache"""

import pytest


@pytest.fixture
def filled(vitrail, write_tree, tmp_path, monkeypatch):
    """Two sets of images in a cache of their own, with their near copies."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "my cache"))
    for name in ("birds", "insects"):
        write_tree(tmp_path / name, {"a": 4, "b": 4})
        assert vitrail("audit", str(tmp_path / name)).code == 0
    return tmp_path


def test_an_empty_cache(vitrail, tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "my cache"))
    folder = tmp_path / "my cache" / "images"
    done = vitrail("cache")
    assert (done.code, done.out) == (0, f"There are no decoded images in {folder}\n")
    shards = {"folder": str(tmp_path / "my cache" / "shards"), "indexes": 0, "bytes": 0}
    assert vitrail("cache", "--json").json == {"folder": str(folder), "bytes": 0, "sets": [], "shards": shards}


def test_what_is_kept_is_listed(vitrail, filled):
    lines = vitrail("cache").out.splitlines()
    assert lines[0].split() == ["images", "of", "size", "number", "on", "disk"]
    assert lines[1].startswith(f"{(filled / 'insects').resolve()}|all")
    assert lines[1].split()[-4:-2] == ["16x12", "8"]
    assert lines[2].startswith("near copies in ")  # of both, whose images are the same
    assert lines[3].startswith(f"{(filled / 'birds').resolve()}|all")
    assert lines[4].endswith(f"in {filled / 'my cache' / 'images'}")
    found = vitrail("cache", "--json").json
    assert [(row["image_size"], row["images"]) for row in found["sets"]] == [("16x12", 8), ("16x16", 0), ("16x12", 8)]
    assert found["bytes"] == sum(row["bytes"] for row in found["sets"]) > 2 * 8 * 16 * 12 * 3


def test_it_is_cleared(vitrail, filled):
    done = vitrail("cache", "--clear")
    assert done.code == 0
    assert done.out.startswith("There are no decoded images in ")
    assert done.err.startswith("Taken away: 3 sets of images, ")


def test_indexes_of_shards_are_listed_and_cleared(vitrail, filled):
    folder = filled / "my cache" / "shards"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.json").write_bytes(bytes(1000))
    line = f"The indexes of 3 tar shards take 3.0 kB in {folder}"
    assert vitrail("cache").out.splitlines()[0] == line
    done = vitrail("cache", "--limit", "0")  # is of images
    assert done.out.splitlines()[0] == line
    assert done.err.count("Taken away") == 1
    done = vitrail("cache", "--clear")
    assert done.err.splitlines()[1] == "Taken away: the indexes of 3 tar shards, 3.0 kB"
    assert done.out.startswith("There are no decoded images in ")
    (folder / "0.json").write_bytes(bytes(1000))
    done = vitrail("cache", "--clear", "--json")
    assert done.json["removed"] == {"sets": 0, "bytes": 0, "shard_indexes": 1, "shard_bytes": 1000}
    assert done.json["shards"] == {"folder": str(folder), "indexes": 0, "bytes": 0}


def test_it_is_limited(vitrail, filled):
    before = vitrail("cache", "--json").json
    done = vitrail("cache", "--limit", str(before["bytes"] - 1), "--json")
    assert done.json["removed"] == {"sets": 1, "bytes": before["sets"][2]["bytes"]}
    assert done.json["sets"] == before["sets"][:2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "much"], "error: 'much' is not a size; write it as 500MB or 10GB\n"),
        (["--limit", "1GB", "--clear"], "error: --clear takes all away, --limit a part; leave one of them out\n"),
    ],
)
def test_mistakes(vitrail, arguments, message):
    done = vitrail("cache", *arguments)
    assert (done.code, done.err) == (2, message)
