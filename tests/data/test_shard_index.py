import hashlib
import io
import json

import pytest
from tar_shards import png, samples, write_shard

from vitrail.data.shard_index import Columns, ShardIndex, make_index, parse_index
from vitrail.errors import DataError


def index_of(tmp_path, members, columns=None):
    content = write_shard(tmp_path / "x.tar", members).read_bytes()
    return make_index(io.BytesIO(content), len(content), "x.tar", columns or Columns())


def test_images_their_places_labels_and_hashes(tmp_path):
    members = samples(3)
    index = index_of(tmp_path, members)
    assert index.members == ["00000.png", "00001.png", "00002.png"]
    assert index.labels == [0, 1, 2]
    assert index.broken == index.ignored == []
    content = (tmp_path / "x.tar").read_bytes()
    for name, offset, size, digest in zip(index.members, index.offsets, index.sizes, index.digests, strict=True):
        assert content[offset : offset + size] == members[name]
        assert hashlib.sha256(members[name]).hexdigest() == digest


def test_a_key_ends_at_the_first_dot_of_the_name(tmp_path):
    members = {"v1.0/a.b.PNG": b"1", "v1.0/a.CLS": "7", "v2.0/a.jpg": b"2", "v2.0/a.json": '{"label": 8}'}
    index = index_of(tmp_path, members)
    assert dict(zip(index.members, index.labels, strict=True)) == {"v1.0/a.b.PNG": 7, "v2.0/a.jpg": 8}


def test_files_of_a_key_need_not_follow_one_another(tmp_path):
    assert index_of(tmp_path, {"a.jpg": b"1", "b.jpg": b"2", "a.cls": "0", "b.cls": "1"}).labels == [0, 1]


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ({"cls": "12\n"}, 12),
        ({"cls": "ant"}, "ant"),
        ({"json": '{"id": 1, "label": "ant", "class": 5}'}, "ant"),
        ({"json": '{"class": 5.0}'}, 5),
        ({"json": '{"cls": [0, 2]}'}, [0, 2]),
        ({"json": '{"labels": ["ant", "bee"]}'}, ["ant", "bee"]),
        ({"json": '{"labels": []}'}, []),
        ({"txt": "12"}, "12"),
        ({"txt": "a caption", "json": '{"label": 3}', "cls": "4"}, 4),
    ],
)
def test_labels(tmp_path, files, label):
    index = index_of(tmp_path, {"a.jpg": b"1"} | {f"a.{suffix}": content for suffix, content in files.items()})
    assert index.labels == [label]


@pytest.mark.parametrize(
    ("wanted", "label"), [(None, 0), ("cls", 0), ("json", 1), ("species", "ant"), ("fine.cls", 2), ("txt", "bee")]
)
def test_the_label_that_is_asked_for(tmp_path, wanted, label):
    files = {"a.cls": "0", "a.json": '{"label": 1, "species": "ant"}', "a.fine.cls": "2", "a.txt": "bee"}
    assert index_of(tmp_path, {"a.jpg": b"1"} | files, Columns(label=wanted)).labels == [label]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "it has no label"),
        ({"cls": ""}, "its label is empty"),
        ({"cls": b"\xff\xff"}, "its label is no UTF-8"),
        ({"cls": "-1"}, "its label is -1; labels count from 0"),
        ({"txt": "one\ntwo"}, "its label has several lines"),
        ({"json": "{"}, "its .json cannot be read"),
        ({"json": "[" * 100_000}, "its .json cannot be read"),
        ({"json": "[1]"}, "it has no label"),
        ({"json": '{"label": null}'}, "its label is null, neither text nor a whole number"),
        ({"json": '{"label": true}'}, "its label is true, neither text nor a whole number"),
        ({"json": '{"label": 1.5}'}, "its label is 1.5, neither text nor a whole number"),
        ({"json": '{"label": [1, "a"]}'}, "its label [1, 'a'] mixes numbers with words"),
    ],
)
def test_images_without_a_label_are_broken(tmp_path, files, reason):
    members = {"a.jpg": b"1"} | {f"a.{suffix}": content for suffix, content in files.items()} | samples(1)
    index = index_of(tmp_path, members)
    assert index.broken == [("a", reason)]
    assert index.members == ["00000.png"]


def test_labels_without_an_image_are_broken(tmp_path):
    index = index_of(tmp_path, {"a.cls": "1", "b.json": '{"label": 2}', "b.npy": b"1"} | samples(1))
    assert index.broken == [("a", "there is no image of its key"), ("b", "there is no image of its key")]


def test_the_image_that_is_asked_for(tmp_path):
    files = {"a.jpg": b"1", "a.mask.png": b"2", "a.cls": "0"}
    assert index_of(tmp_path, files).members == ["a.jpg"]
    assert index_of(tmp_path, files, Columns(image="mask.png")).members == ["a.mask.png"]
    broken = index_of(tmp_path, files, Columns(image="webp")).broken
    assert broken == [("a", "there is no image .webp of its key")]


def test_several_images_of_one_key_need_a_word(tmp_path):
    with pytest.raises(
        DataError, match=r"^x\.tar: a has several images, \.jpg and \.png; say .* --set data\.image_column=jpg$"
    ):
        index_of(tmp_path, {"a.png": b"1", "a.jpg": b"2", "a.cls": "0"})


def test_a_doubled_key_is_broken(tmp_path):
    members = [("a.jpg", b"1"), ("a.cls", "0"), *samples(1).items(), ("a.jpg", b"2"), ("a.cls", "1")]
    index = index_of(tmp_path, members)
    assert index.broken == [("a", "a.cls stands twice in the shard")]
    assert index.members == ["00000.png"]


def test_what_is_no_sample_is_named(tmp_path):
    members = {"README.md": b"1", "__info__.json": "{}", ".DS_Store": b"1", "folder/LICENSE": b"1", "/a.jpg": b"1"}
    index = index_of(tmp_path, members | samples(1))
    assert {*index.ignored} == {
        "README.md", "__info__.json", ".DS_Store", "folder/LICENSE", "/a.jpg (a path that leads outside)",
    }  # fmt: skip


def test_groups(tmp_path):
    members = {"a.jpg": b"1", "a.json": '{"label": 0, "patient": 17}', "b.jpg": b"2", "b.cls": "0"}
    assert index_of(tmp_path, members, Columns(group="patient")).groups == ["17", None]


@pytest.mark.parametrize("members", [{}, {"README.md": b"1"}])
def test_a_shard_without_samples_is_refused(tmp_path, members):
    with pytest.raises(DataError, match=r"^x\.tar holds no image; a shard holds an image and a label for each key, as"):
        index_of(tmp_path, members)


def test_progress_is_told(tmp_path):
    content = write_shard(tmp_path / "x.tar", samples(2)).read_bytes()
    told: list[int] = []
    index = make_index(io.BytesIO(content), len(content), "x.tar", Columns(), told.append)
    assert told == sorted(told)
    assert {*index.offsets} <= {*told}


# As JSON


def written(index: ShardIndex, **changes: object) -> str:
    return json.dumps(json.loads(index.to_json(10_000, "v", Columns())) | changes)


@pytest.fixture
def index(tmp_path):
    members = {"a.jpg": png(0), "a.cls": "ä", "b.jpg": b"1", "c.md": b"1", "d.jpg": b"1", "d.json": '{"label": [1]}'}
    return index_of(tmp_path, members)


def test_an_index_is_read_as_it_was_written(index):
    assert parse_index(written(index), 10_000, "v", Columns()) == index
    assert parse_index(written(index), 10_000, None, Columns()) == index


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": "x"}, "is no index of a shard"),
        ({"version": 0}, "is of another version of Vitrail"),
        ({"shard_bytes": 9}, "is older than the shard"),
        ({"shard_version": "w"}, "is older than the shard"),
        ({"columns": {"image": None, "label": "x", "group": None}}, "was made for other columns"),
        ({"members": None}, "is damaged"),
        ({"members": ["a.jpg"]}, "is damaged"),
        ({"offsets": [512, 99_999]}, "is damaged"),
        ({"offsets": [512, -1]}, "is damaged"),
        ({"offsets": ["512", 0]}, "is damaged"),
        ({"labels": [1, None]}, "is damaged"),
        ({"labels": [1, {"a": 1}]}, "is damaged"),
        ({"digests": [1, 2]}, "is damaged"),
        ({"groups": [1, 2]}, "is damaged"),
        ({"broken": [1]}, "is damaged"),
    ],
)
def test_an_index_that_does_not_fit_is_not_used(index, changes, problem):
    assert parse_index(written(index, **changes), 10_000, "v", Columns()) == problem


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"format": "vitrail shard index"}'])
def test_a_damaged_index_is_not_used(text):
    assert parse_index(text, 1, "v", Columns()) in ("is damaged", "is no index of a shard")
