"""Commands on tar shards, on this machine and at a URL."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from loopback_files import LoopbackFiles
from tar_shards import pack, png, samples, write_shard

from vitrail.data import remote, shard_files


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(shard_files, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def fast(tiny):
    """Options of a training that takes a fraction of a second."""
    settings = [f"--set={key}={value}" for key, value in tiny.items()]
    return ["--recipe=digits", "--epochs=2", "--set=model.image_size=12", *settings]


@pytest.fixture
def shards(vitrail) -> str:
    """./shards of 60 images of three classes to train on and 30 to test, in five files."""
    for number in range(3):
        write_shard(Path(f"shards/train-{number:06d}.tar"), samples(20, first=20 * number))
    for number in range(2):
        write_shard(Path(f"shards/test-{number:06d}.tar"), samples(15, first=60 + 15 * number))
    Path("shards/classes.txt").write_text("ant\nbee\ncow\n", encoding="utf-8")
    return "shards"


def weights(run) -> bytes:
    return Path(run, "model.safetensors").read_bytes()


def test_shards_are_audited_trained_on_and_evaluated(vitrail, shards, fast):
    audit = vitrail("audit", shards, "--json")
    assert audit.code == 0
    assert audit.json["counts"]["train"] == {"ant": 20, "bee": 20, "cow": 20}
    done = vitrail("train", shards, *fast, "--json")
    assert done.code == 0
    assert (done.json["dataset"], done.json["test"]["images"]) == ("shards", 30)
    assert [row["class"] for row in done.json["test"]["per_class"]] == ["ant", "bee", "cow"]
    assert vitrail("evaluate", "last", "--json").json["test"] == done.json["test"]
    assert vitrail("evaluate", "last", "shards/test-*.tar", "--json").json["test"] == done.json["test"]


def test_shards_are_the_same_by_pattern_and_by_url_and_as_a_stream(vitrail, shards, fast):
    files = {f"x/{path.name}": path.read_bytes() for path in Path(shards).iterdir()}
    with LoopbackFiles(files).serving() as web:
        url = f"{web.url}/x/{{train-{{000000..000002}},test-{{000000..000001}}}}.tar"
        for name, source, serving in (
            ("here", "shards/*.tar", "auto"),
            ("there", url, "auto"),
            ("stream", url, "stream"),
        ):
            done = vitrail("train", source, *fast, f"--set=data.serving={serving}", "--out", name, "--json")
            assert done.code == 0
            assert weights(name) == weights("here")
        assert vitrail("evaluate", "there", "--json").json["test"] == done.json["test"]


@pytest.mark.slow
def test_shards_give_the_weights_of_the_folders_they_were_packed_from(vitrail, write_tree, fast):
    write_tree(Path("photos"), {"ant": 20, "bee": 20, "cow": 20})
    pack(Path("photos"), Path("photos.tar"))
    for source, run in (("photos", "one"), ("photos.tar", "two")):
        assert vitrail("train", source, *fast, "--out", run).code == 0
    assert weights("one") == weights("two")


def test_broken_samples_are_named_and_too_many_refused(vitrail, shards, fast):
    members = samples(20) | {"x.png": png(999)}
    write_shard(Path("shards/train-000000.tar"), members)
    refused = vitrail("train", shards, *fast)
    assert refused.code == 1
    assert "train-000000.tar/x cannot be used: it has no label" in refused.error
    done = vitrail("train", shards, *fast, "--out", "run", "--set=data.max_broken_rate=0.05", "--json")
    assert done.code == 0
    assert "train-000000.tar/x" in Path("run/audit.json").read_text(encoding="utf-8")


def test_columns_are_settings(vitrail, fast):
    members: dict[str, bytes | str] = {}
    for number in range(40):
        members |= {f"{number}.png": png(number, (12, 12), number % 2)}
        members |= {f"{number}.json": json.dumps({"label": "unused", "kind": "ab"[number % 2], "nest": number // 4})}
    write_shard(Path("a.tar"), members)
    columns = ["--set=data.label_column=kind", "--set=data.group_column=nest"]
    done = vitrail("train", "a.tar", *fast, *columns, "--out", "run", "--json")
    assert done.code == 0
    assert [row["class"] for row in done.json["test"]["per_class"]] == ["a", "b"]
    assert vitrail("evaluate", "run", "--json").json["test"] == done.json["test"]


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        ("gone.tar", 2, "gone.tar does not exist; name a .tar file, a pattern or a folder of them"),
        ("gone-*.tar", 2, "No .tar file matches gone-*.tar"),
        (
            "shards/train-{000000..000003}.tar",
            1,
            "shards/train-000003.tar of the 4 shards of shards/train-{000000..0000",
        ),
        ("shards/train-{000001..000000}.tar", 2, "{000001..000000} in shards/train-{000001..000000}.tar counts down;"),
        (
            "packed.tar.gz",
            1,
            "packed.tar.gz is compressed, so that its images cannot be read one by one; unpack it to a",
        ),
        ("cut.tar", 1, "cut.tar is cut off: it ends at byte 600, within 00000.png, which goes on to byte "),
        (
            "empty.tar",
            1,
            "empty.tar holds no image; a shard holds an image and a label for each key, as 01.jpg and 01.c",
        ),
        (
            "plain.tar",
            1,
            "No image of plain has a label (a: it has no label); a shard holds 01.cls, or 01.json with a ",
        ),
        (
            "http://127.0.0.1:1/*.tar",
            1,
            "http://127.0.0.1:1/*.tar cannot be listed, as web servers do not say which fi",
        ),
        ("http://127.0.0.1:1/a.tar", 1, "http://127.0.0.1:1/a.tar cannot be read, tried 3 times: Connection refused"),
        ("s9://bucket/a.tar", 1, "s9://bucket/a.tar cannot be read: Protocol not known: s9"),
    ],
)
def test_mistakes_are_one_sentence(vitrail, shards, data, code, sentence):
    Path("packed.tar.gz").write_bytes(b"x")
    Path("cut.tar").write_bytes(Path("shards/train-000000.tar").read_bytes()[:600])
    write_shard(Path("empty.tar"), {})
    write_shard(Path("plain.tar"), {"a.png": png(0)})
    done = vitrail("train", data)
    assert done.code == code
    assert done.error.startswith(sentence)


def test_no_network_offline(vitrail):
    done = vitrail("train", "https://host/a.tar", "--offline")
    assert (done.code, done.error) == (
        2,
        "https://host/a.tar is not on this machine, and --offline is given; download it first",
    )


@pytest.mark.slow
def test_a_shard_that_goes_away_in_mid_training_is_named_and_the_training_goes_on(vitrail, shards, fast, monkeypatch):
    stream, place = [*fast, "--epochs=6", "--set=data.serving=stream"], Path(shards, "train-000001.tar")
    assert vitrail("train", shards, *stream, "--out", "whole").code == 0
    real = shard_files.ShardReader.read

    def read(self, shard, *where):
        if any(Path("run/checkpoints").glob("*")):
            with suppress(FileNotFoundError):  # another thread was here before
                place.rename("away.tar")
            self._files.forget(str(place))
        return real(self, shard, *where)

    monkeypatch.setattr(shard_files.ShardReader, "read", read)
    done = vitrail("train", shards, *stream, "--out", "run")
    assert done.code == 1
    assert "shards/train-000001.tar is gone; put it back; " in done.error
    assert "vitrail train --resume --out run" in done.error
    assert '"finished"' not in Path("run/journal.jsonl").read_text(encoding="utf-8")
    monkeypatch.setattr(shard_files.ShardReader, "read", real)
    Path("away.tar").rename(place)
    assert vitrail("train", "--resume", "--out", "run").code == 0
    assert weights("run") == weights("whole")
