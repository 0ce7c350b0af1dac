import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import LoopbackHub, Repository
from PIL import Image

from vitrail.data.hub_sets import HubSource, parse_source
from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions
from vitrail.data.sources import open_dataset
from vitrail.errors import CheckpointError, ConfigError, DataError

SIZE = Preprocess(image_size=(6, 8), channels=3, fit="crop")


def png(seed, size=(6, 8)):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def parquet(first, count, label="label", image="image"):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": png(first + n), "path": None} for n in range(count)], kind)
    stream = io.BytesIO()
    pq.write_table(pa.table({image: images, label: [n % 3 for n in range(count)]}), stream)
    return stream.getvalue()


@pytest.fixture
def published(hub, monkeypatch):
    """`published(name, files)`: a data set's repository on the hub of this machine."""
    monkeypatch.delenv("VITRAIL_DATA", raising=False)

    def publish(name: str, files: dict[str, bytes], **options: bool) -> LoopbackHub:
        hub.repositories[f"datasets/{name}"] = Repository(files, **options)
        return hub

    return publish


PARQUET = {"data/train-00000-of-00001.parquet": parquet(0, 9), "data/test-00000-of-00001.parquet": parquet(50, 6)}


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("hf:owner/birds", HubSource("owner/birds"), "birds"),
        ("hf:owner/my.birds-2:small", HubSource("owner/my.birds-2", "small"), "my.birds-2-small"),
        ("hf:owner/birds@refs/convert/parquet", HubSource("owner/birds@refs/convert/parquet"), "birds"),
        ("hf:owner/birds@v1:a", HubSource("owner/birds@v1", "a"), "birds-a"),
    ],
)
def test_sources_are_parsed(text, source, name):
    assert parse_source(text) == source
    assert source.name == name


@pytest.mark.parametrize("text", ["hf:", "hf:birds", "hf:owner/birds:", "hf:a/b/c", "hf:owner/bi rds"])
def test_what_is_no_source_is_refused(text):
    with pytest.raises(ConfigError, match="is no data set on the hub; write it as hf:owner/name or hf:owner/name:conf"):
        open_dataset(text)


def test_parquet_files_are_read(published):
    published("owner/birds", PARQUET)
    dataset = open_dataset("hf:owner/birds")
    assert (dataset.name, dataset.published, dataset.classes) == ("birds", ("train", "test"), ("0", "1", "2"))
    assert [len(dataset.read(split)) for split in dataset.published] == [9, 6]
    np.testing.assert_array_equal(dataset.read("test").pixels[2], np.asarray(Image.open(io.BytesIO(png(52)))))


def test_what_was_fetched_is_there_without_a_network(published):
    hub = published("owner/birds", PARQUET)
    first = open_dataset("hf:owner/birds").read("train")
    num_requests = len(hub.requests)
    second = open_dataset("hf:owner/birds", options=ReadOptions(offline=True)).read("train")
    assert len(hub.requests) == num_requests
    hub.down = True
    third = open_dataset("hf:owner/birds").read("train")
    assert first.hashes == second.hashes == third.hashes


def test_nothing_is_fetched_offline(published):
    hub = published("owner/birds", PARQUET)
    with pytest.raises(CheckpointError, match=r"^owner/birds is not in the cache, and this is offline; where there is"):
        open_dataset("hf:owner/birds", options=ReadOptions(offline=True))
    assert hub.requests == []


def test_a_hub_that_is_not_reached_is_told(published):
    hub = published("owner/birds", PARQUET)
    hub.down = True
    with pytest.raises(
        CheckpointError, match=r"was not reached \(.*\), and owner/birds is not in the cache; where there"
    ):
        open_dataset("hf:owner/birds")


def test_files_that_are_not_needed_are_not_fetched(published):
    hub = published("owner/birds", PARQUET | {"model.bin": b"large", "notes.txt": b""})
    open_dataset("hf:owner/birds")
    assert not any("model.bin" in request or "notes.txt" in request for request in hub.requests)


def test_a_card_says_which_files_are_which(published):
    card = """---
configs:
- config_name: large
  data_files:
  - split: train
    path: big/*.parquet
- config_name: small
  default: true
  data_files:
  - split: train
    path: part/a-*.parquet
  - split: dev
    path: [part/b.parquet]
---
# Birds
"""
    files = {"big/x.parquet": parquet(0, 12), "part/a-1.parquet": parquet(20, 6), "part/a-2.parquet": parquet(30, 3)}
    published("owner/birds", files | {"part/b.parquet": parquet(40, 3), "README.md": card.encode()})
    small = open_dataset("hf:owner/birds:small")
    assert {split: len(small.read(split)) for split in small.published} == {"train": 9, "validation": 3}
    large = open_dataset("hf:owner/birds:large")
    assert (large.name, {split: len(large.read(split)) for split in large.published}) == ("birds-large", {"train": 12})
    with pytest.raises(ConfigError, match=r"^owner/birds has several configurations, small, large; name one: hf:own"):
        open_dataset("hf:owner/birds")
    with pytest.raises(ConfigError, match=r"has no configuration 'larg'\. Did you mean 'large'\? It has small, larg"):
        open_dataset("hf:owner/birds:larg")


def test_a_folder_a_configuration(published):
    published("owner/birds", {f"{name}/train-0.parquet": parquet(0, count) for name, count in (("a", 6), ("b", 9))})
    assert len(open_dataset("hf:owner/birds:b").read("train")) == 9
    with pytest.raises(ConfigError, match=r"^owner/birds has several configurations, a, b; name one: hf:owner/birds"):
        open_dataset("hf:owner/birds")
    with pytest.raises(ConfigError, match=r"has no configuration 'c'\. It has a, b"):
        open_dataset("hf:owner/birds:c")


def test_tables_of_paths_come_with_their_images(published):
    images = {f"images/{n}.png": png(n) for n in range(6)}
    rows = "".join(f"images/{n}.png,{'ab'[n % 2]}\n" for n in range(6))
    published("owner/birds", images | {"metadata.csv": ("file_name,label\n" + rows).encode()})
    assert len(open_dataset("hf:owner/birds").prepared("all", SIZE)) == 6


def test_folders_of_images(published):
    files = {f"{split}/{name}/{n}.png": png(n) for split in ("train", "test") for name in "ab" for n in range(3)}
    published("owner/birds", files | {"README.md": b"no YAML here"})
    dataset = open_dataset("hf:owner/birds")
    assert (dataset.published, dataset.classes) == (("train", "test"), ("a", "b"))


def test_tar_shards(published):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for n in range(6):
            for suffix, content in (("png", png(n)), ("cls", str(n % 2).encode())):
                member = tarfile.TarInfo(f"{n:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    published("owner/birds", {"train-000000.tar": stream.getvalue()})
    assert len(open_dataset("hf:owner/birds").prepared("train", SIZE)) == 6


def test_repositories_without_images_are_refused(published):
    published("owner/words", {"words.txt": b"bird"})
    with pytest.raises(DataError, match=r"^owner/words holds no images that are known: no Parquet file, table, tar sh"):
        open_dataset("hf:owner/words")


def test_repositories_that_are_not_there_are_refused(published):
    published("owner/secret", PARQUET, gated=True)
    with pytest.raises(ConfigError, match=r"has no data set owner/brids, or it is private; check the name, or log in"):
        open_dataset("hf:owner/brids")
    with pytest.raises(CheckpointError, match=r"^datasets/owner/secret is given to those only who accept its terms"):
        open_dataset("hf:owner/secret")


@pytest.mark.parametrize(
    ("name", "repository", "files"),
    [
        ("mnist", "ylecun/mnist", {"mnist/train-0.parquet": parquet(0, 6), "mnist/test-0.parquet": parquet(9, 3)}),
        ("cifar100", "uoft-cs/cifar100", {"cifar100/train-0.parquet": parquet(0, 6, "fine_label", "img")}),
    ],
)
def test_named_sets_are_fetched_where_they_are_not_here(published, name, repository, files, tmp_path, monkeypatch):
    hub = published(repository, files)
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path))
    dataset = open_dataset(name)
    assert (dataset.name, len(dataset.read("train"))) == (name, 6)
    assert hub.requests
    with pytest.raises(ConfigError, match=r"does not exist, and fashion_mnist could not be fetched .*; set VITRAIL_DA"):
        open_dataset("fashion_mnist", options=ReadOptions(offline=True))
