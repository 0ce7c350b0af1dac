import pytest

from vitrail.data.shard_names import (
    dataset_name,
    expand_braces,
    find_shards,
    holds_shards,
    names_shards,
    split_shards,
)
from vitrail.errors import ConfigError, DataError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory, and how empty files are put there."""
    monkeypatch.chdir(tmp_path)

    def touch(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return touch


@pytest.mark.parametrize(
    "data",
    [
        *("a.tar", "A.TAR", "x/train-*.tar", "t-{000..009}.tar", "{a.tar,b.tar}", "a.tar.gz", "a.tgz"),
        *("s3://bucket/folder/", "https://host/a.tar?signature=x", "memory://x/*.tar", "pipe:cat a.tar"),
    ],
)
def test_what_is_written_as_shards(data):
    assert names_shards(data)


@pytest.mark.parametrize(
    "data", ["photos", "a.tar/b", "table.csv", "https://host/table.csv?x=a.tar", "mnist", "", "a.tar.parquet", "tar"]
)
def test_what_is_not(data):
    assert not names_shards(data)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("a.tar", ["a.tar"]),
        ("a{8..11}", ["a8", "a9", "a10", "a11"]),
        ("a{08..11}b", ["a08b", "a09b", "a10b", "a11b"]),
        ("a{000..2}", ["a000", "a001", "a002"]),
        ("{x,y}{0..1}", ["x0", "x1", "y0", "y1"]),
        ("{x,y{0..1}}", ["x", "y0", "y1"]),
        ("a{b}c", ["a{b}c"]),
    ],
)
def test_braces(pattern, texts):
    assert expand_braces(pattern) == texts


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a{3..1}.tar", r"^\{3\.\.1\} in a\{3\.\.1\}\.tar counts down; write the first number, two dots, the last$"),
        ("{0..999999999}", r"stands for more than 100,000 shards"),
        ("{0..999}{0..999}", r"stands for more than 100,000 shards; name fewer$"),
    ],
)
def test_braces_that_are_slips(pattern, message):
    with pytest.raises(ConfigError, match=message):
        expand_braces(pattern)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["a-0.tar", "a-1.tar"], {"all": ["a-0.tar", "a-1.tar"]}),
        (["train-0.tar", "train-1.tar"], {"train": ["train-0.tar", "train-1.tar"]}),
        (["test.tar", "train.tar"], {"train": ["train.tar"], "test": ["test.tar"]}),
        (["in1k-train-0.tar", "in1k-val-0.tar"], {"train": ["in1k-train-0.tar"], "validation": ["in1k-val-0.tar"]}),
        (["trainers-0.tar", "testing_0.tar.", "constrain.tar"], None),
    ],
)
def test_splits_by_name(names, splits):
    if splits is None:
        with pytest.raises(
            DataError, match=r"^testing_0\.tar\. names its split and trainers-0\.tar, constrain\.tar do "
        ):
            split_shards(names)
    else:
        assert split_shards(names) == splits


def test_one_shard(here):
    here("train-0.tar")
    assert find_shards("train-0.tar") == {"all": ["train-0.tar"]}


def test_patterns_and_braces(here):
    here(*(f"s/{split}-{number:02d}.tar" for split in ("train", "test") for number in range(3)), "s/train-00.json")
    train = ["s/train-00.tar", "s/train-01.tar", "s/train-02.tar"]
    assert find_shards("s/train-*.tar") == find_shards("s/train-{00..02}.tar") == {"train": train}
    assert find_shards("s/{train,test}-{00..02}.tar") == find_shards("s/*.tar") == find_shards("s")
    assert [*find_shards("s")] == ["train", "test"]


def test_numbers_order_shards(here):
    here("a-9.tar", "a-10.tar", "a-11.tar")
    assert find_shards(".")["all"] == find_shards("a-*.tar")["all"] == ["a-9.tar", "a-10.tar", "a-11.tar"]


def test_a_name_with_braces_that_is_there_is_no_pattern(here):
    here("a{1,2}[x].tar")
    assert find_shards("a{1,2}[x].tar") == {"all": ["a{1,2}[x].tar"]}


def test_folders_of_splits(here):
    here("s/train/0.tar", "s/train/1.tar", "s/val/0.tar", "s/other/0.tar")
    assert {split: len(places) for split, places in find_shards("s").items()} == {"train": 2, "validation": 1}


def test_tars_beside_class_folders_are_what_these_came_from(here, tmp_path, write_tree):
    here("images.tar", ".hidden.tar")
    assert holds_shards(tmp_path)
    write_tree(tmp_path, {"ant": 1, "bee": 1})
    assert not holds_shards(tmp_path)


@pytest.mark.parametrize(
    ("names", "data", "message"),
    [
        (
            ["a-0.tar", "a-2.tar"],
            "a-{0..2}.tar",
            r"^a-1\.tar of the 3 shards of a-\{0\.\.2\}\.tar is missing; put them",
        ),
        (["a-0.tar"], "a-{0..9}.tar", r"^a-1\.tar, a-2\.tar, a-3\.tar and 6 more of the 10 shards .* are missing"),
        (
            ["a-00.tar", "a-02.tar"],
            "a-*.tar",
            r"^a-01\.tar is missing \(2 of 3 shards are there\); put it there, or name",
        ),
        (["s/a-00.tar", "s/a-02.tar"], "s", r"^s/a-01\.tar is missing \(2 of 3"),
        (["s/t-0-of-3.tar", "s/t-1-of-3.tar"], "s", r"^s/t-2-of-3\.tar is missing \(2 of 3"),
        (["a.tar.gz"], "a.tar.gz", r"^a\.tar\.gz is compressed, .*; unpack it to a plain \.tar$"),
        (["s/a.tgz"], "s", r"^s/a\.tgz is compressed"),
    ],
)
def test_shards_that_are_missing_or_packed(here, names, data, message):
    here(*names)
    with pytest.raises(DataError, match=message):
        find_shards(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("gone.tar", r"^gone\.tar does not exist; name a \.tar file, a pattern or a folder of them$"),
        ("gone-*.tar", r"^No \.tar file matches gone-\*\.tar$"),
        ("pipe:cat a.tar", r"^pipe:cat a\.tar would start a program; name tar files, or a URL of them$"),
    ],
)
def test_what_does_not_exist(here, data, message):
    with pytest.raises(ConfigError, match=message):
        find_shards(data)


def test_urls_are_expanded_and_not_looked_at(here):
    found = find_shards("https://host/x/{train,test}-{0..1}.tar?key=1")
    assert found["test"] == ["https://host/x/test-0.tar?key=1", "https://host/x/test-1.tar?key=1"]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("photos.tar", "photos"),
        ("photos-{000..009}.tar", "photos"),
        ("shards/train-*.tar", "shards"),
        ("my shards/{train,test}-*.tar", "my-shards"),
        ("birds/train/{0..3}.tar", "birds"),
        ("s3://bucket/birds/train-{0..3}.tar", "birds"),
        ("memory://birds/", "birds"),
    ],
)
def test_names_of_sets(data, name):
    assert dataset_name(data) == name
