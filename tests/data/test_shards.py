import io
import os
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from loopback_files import LoopbackFiles
from PIL import Image
from tar_shards import pack, png, samples, write_shard

from vitrail.data import remote, shard_files
from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions, SourceError
from vitrail.data.shards import open_shards
from vitrail.data.sources import open_dataset
from vitrail.errors import ConfigError, DataError

EIGHT = Preprocess(image_size=(8, 8), channels=3, fit="pad")


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(shard_files, "PAUSE_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_images_come_in_the_order_of_the_shards():
    for number in range(3):
        write_shard(Path(f"birds/x-{number}.tar"), samples(4, first=4 * number))
    dataset = open_dataset("birds/x-{0..2}.tar")
    assert (dataset.name, dataset.classes, dataset.published) == ("x", ("0", "1", "2"), ("all",))
    images = dataset.read("all")
    assert images.names == tuple(f"x-{number // 4}.tar/{number:05d}.png" for number in range(12))
    assert images.labels.tolist() == [number % 3 for number in range(12)]
    every = samples(12)
    assert all((images.pixels[number] == decoded(every[f"{number:05d}.png"])).all() for number in range(12))


def test_samples_are_those_of_webdataset():
    from webdataset import ShardWriter
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    with ShardWriter("birds-%03d.tar", maxcount=3, verbose=0) as writer:
        for number in range(8):
            key = f"v1.0/{'éa'[number % 2]}{number}"
            writer.write({"__key__": key, "png": png(number), "cls": number % 3, "mask.png": png(number + 100)})
    theirs = []
    for number in range(3):
        with open(f"birds-{number:03d}.tar", "rb") as file:
            theirs += group_by_keys(member | {"__url__": ""} for member in tar_file_iterator(file))
    dataset = open_dataset("birds-{000..002}.tar")
    ours = dataset.read("all")
    assert [name.partition("/")[2] for name in ours.names] == [f"{sample['__key__']}.png" for sample in theirs]
    assert [dataset.classes[label] for label in ours.labels] == [sample["cls"].decode() for sample in theirs]
    assert all((image == decoded(sample["png"])).all() for image, sample in zip(ours.pixels, theirs, strict=True))


def test_published_splits():
    write_shard(Path("s/train-0.tar"), samples(6))
    write_shard(Path("s/val-0.tar"), samples(3, first=6))
    write_shard(Path("s/test-0.tar"), samples(3, first=9))
    dataset = open_dataset("s")
    assert (dataset.name, dataset.published) == ("s", ("train", "validation", "test"))
    assert [len(dataset.read(split)) for split in dataset.published] == [6, 3, 3]


def test_no_shard_of_another_split_is_opened():
    write_shard(Path("s/train-0.tar"), samples(6))
    Path("s/test-0.tar").write_bytes(b"damaged" * 100)
    dataset = open_dataset("s")
    assert len(dataset.read("train")) == 6
    with pytest.raises(DataError, match=r"test-0\.tar is no tar file that can be read"):
        dataset.read("test")


def test_images_are_those_of_the_folders_they_were_packed_from(write_tree):
    write_tree(Path("photos"), {"ant": 3, "bee": 2})
    pack(Path("photos"), Path("photos.tar"))
    ours, theirs = open_dataset("photos.tar"), open_dataset("photos")
    assert ours.classes == theirs.classes == ("ant", "bee")
    ours, theirs = ours.prepared("all", EIGHT), theirs.prepared("all", EIGHT)
    assert (ours.pixels == theirs.pixels).all()
    assert (ours.labels == theirs.labels).all()
    assert ours.hashes == theirs.hashes
    assert ours.names == tuple(f"photos.tar/{name}" for name in theirs.names)


def test_what_is_decoded_is_not_read_again(monkeypatch):
    write_shard(Path("a.tar"), samples(4))
    open_dataset("a.tar").prepared("all", EIGHT)
    again = open_dataset("a.tar")
    monkeypatch.setattr(shard_files.ShardReader, "read", None)
    assert len(again.prepared("all", EIGHT)) == 4


def test_shards_at_urls():
    path = write_shard(Path("train-0.tar"), samples(5))
    root = f"memory:///{uuid.uuid4().hex}"
    with fsspec.open(f"{root}/train-0.tar", "wb") as file:
        file.write(path.read_bytes())
    with fsspec.open(f"{root}/classes.txt", "wb") as file:
        file.write(b"ant\nbee\ncow")
    local = open_dataset("train-0.tar").prepared("all", EIGHT)
    with LoopbackFiles({"train-0.tar": path.read_bytes()}).serving() as web:
        for place in (f"{web.url}/train-0.tar?secret=1", f"{root}/train-0.tar"):
            images = open_dataset(place).prepared("all", EIGHT)
            assert images.names == local.names
            assert (images.pixels == local.pixels).all()
    for place in (f"{root}/", f"{root}/*.tar"):
        assert (open_dataset(place).classes, open_dataset(place).published) == (("ant", "bee", "cow"), ("train",))


def test_what_cannot_be_used_is_broken_and_named():
    members = samples(4) | {"x.png": png(9), "y.cls": "1", "z.png": b"damaged", "z.cls": "0"}
    write_shard(Path("a.tar"), members | {"README.md": b"x", "../out.png": b"x"})
    dataset = open_dataset("a.tar")
    assert dataset.ignored == ("a.tar/../out.png (a path that leads outside)", "a.tar/README.md")
    assert len(dataset.prepared("all", EIGHT)) == 4
    reasons = dict(dataset.broken["all"])
    assert {*reasons} == {"a.tar/x", "a.tar/y", "a.tar/z.png"}
    assert reasons["a.tar/x"] == "a.tar/x cannot be used: it has no label"
    assert reasons["a.tar/y"] == "a.tar/y cannot be used: there is no image of its key"
    assert reasons["a.tar/z.png"].startswith("a.tar/z.png is not an image that can be read")


def test_several_labels():
    members = {f"{i}.png": png(i) for i in range(3)}
    members |= {f"{i}.json": text for i, text in enumerate(['{"labels": [0, 2]}', '{"labels": []}', '{"labels": [1]}'])}
    write_shard(Path("a.tar"), members)
    dataset = open_dataset("a.tar")
    assert dataset.multilabel
    assert dataset.prepared("all", EIGHT).labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_columns_that_are_named():
    members = {"a.png": png(0), "a.mask.png": png(1), "a.json": '{"species": "owl", "nest": 3}'}
    members |= {"b.png": png(2), "b.mask.png": png(3), "b.json": '{"species": "ant"}'}
    write_shard(Path("a.tar"), members)
    options = ReadOptions(image_column="mask.png", label_column="species", group_column="nest")
    images = open_dataset("a.tar", options=options).prepared("all", EIGHT)
    assert images.names == ("a.tar/a.mask.png", "a.tar/b.mask.png")
    assert images.labels.tolist() == [1, 0]
    assert images.groups == ("3", "")
    with pytest.raises(
        ConfigError, match=r"^data\.group_column=x: no \.json in the shards of a has a field of that name"
    ):
        open_dataset("a.tar", options=ReadOptions(label_column="species", image_column="png", group_column="x"))


def test_names_are_told_apart_where_shards_have_the_same():
    for folder in ("north", "south"):
        write_shard(Path(folder, "0.tar"), samples(2))
    assert open_dataset("{north,south}/0.tar").read("all").names[::2] == (
        "north/0.tar/00000.png",
        "south/0.tar/00000.png",
    )


def test_no_url_is_asked_for_offline():
    with pytest.raises(
        ConfigError, match=r"^https://host/a\.tar is not on this machine, and --offline is given; downl"
    ):
        open_shards("https://host/a.tar?key=1", ReadOptions(offline=True))


def test_a_shard_that_changes_stops_what_reads_it(write_tree):
    write_shard(Path("a.tar"), samples(4))
    streamed = open_dataset("a.tar", options=ReadOptions(serving="stream")).prepared("all", EIGHT)
    assert streamed.pixels[:].shape == (4, 8, 8, 3)
    os.utime("a.tar", (9, 9))
    write_shard(Path("a.tar"), samples(4, first=3))
    with pytest.raises(
        SourceError,
        match=r"^a\.tar was changed while it was in use; put the old file back, or start again with the new one$",
    ):
        streamed.pixels[:]


def test_a_shard_that_vanishes_before_it_is_decoded_leaves_no_image_out():
    write_shard(Path("a-0.tar"), samples(40))
    write_shard(Path("a-1.tar"), samples(1, first=40))
    dataset = open_dataset("a-{0..1}.tar")
    os.unlink("a-1.tar")
    with pytest.raises(SourceError, match=r"^a-1\.tar is gone; put it back$"):
        dataset.prepared("all", EIGHT)
