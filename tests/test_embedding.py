import csv
import hashlib
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import vitrail
from vitrail import classifier as classifier_module
from vitrail import embedding
from vitrail.api import load
from vitrail.classifier import Classifier
from vitrail.data.content import content_hash
from vitrail.data.loader import channels_first
from vitrail.embedding import embed_images
from vitrail.errors import CheckpointError, ConfigError

FORMATS = ["parquet", "jsonl", "csv"]


@pytest.fixture(scope="module")
def trained(digits_run: Path) -> Classifier:
    return load(digits_run)


@pytest.fixture
def scans(tmp_path, digit_images) -> list[Path]:
    """Six digits, and in their midst a file that is no image."""
    for index in range(6):
        Image.fromarray(digit_images[index]).save(tmp_path / f"{index}.png")
    (tmp_path / "2 torn.png").write_text("no image")
    return sorted(tmp_path.glob("*.png"))


def read(path: Path) -> list[dict]:
    """The rows of a file in any format, vectors as float32 arrays."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        rows = []
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            values = [row.pop(name) for name in list(row) if name.startswith("embedding_")]
            rows.append(
                {**{key: value or None for key, value in row.items()}, "embedding": values if values[0] else None}
            )
    for row in rows:
        if row["embedding"] is not None:
            row["embedding"] = np.array(row["embedding"], np.float32)
    return rows


def test_vectors_are_what_the_head_reads(trained, scans, digit_images):
    found = embed_images(trained, scans, None)
    assert (found.num_images, found.width, found.vectors.shape, found.vectors.dtype) == (6, 32, (6, 32), np.float32)
    model = trained.engine.model
    with torch.no_grad():
        expected = model.pool(model.forward_features(channels_first(digit_images[:6, ..., None])))
        np.testing.assert_allclose(found.vectors, expected, rtol=1e-5, atol=1e-6)
        logits = model.head(torch.from_numpy(found.vectors))
    np.testing.assert_allclose(logits, trained.engine.logits(digit_images[:6, ..., None]), rtol=1e-5, atol=1e-5)
    assert [row.image for row in found.rows] == [str(path) for path in scans]
    (bad,) = found.unreadable
    assert (bad.content, bad.vector) == (None, None)
    assert bad.error.startswith(f"{bad.image} is not an image that can be read")


def test_one_image_and_arrays(trained, scans, digit_images):
    vectors = embed_images(trained, scans, None).vectors
    np.testing.assert_allclose(trained.embed(scans[0]), vectors[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trained.features(digit_images[:6, ..., None]), vectors, rtol=1e-5, atol=1e-6)
    assert trained.embed(digit_images[0]).shape == (32,)


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_hold_what_memory_would(trained, scans, tmp_path, monkeypatch, digit_images, suffix):
    monkeypatch.setattr(embedding, "GROUP_VALUES", 64)  # two rows
    output = tmp_path / f"out.{suffix}"
    heard = []
    done = embed_images(trained, scans, output, lambda *counts: heard.append(counts))
    assert (done.num_images, done.width, done.rows, len(done.unreadable)) == (6, 32, None, 1)
    assert heard == [(count, 7) for count in range(1, 8)]
    rows, expected = read(output), embed_images(trained, scans, None)
    assert [(row["image"], row["error"]) for row in rows] == [(row.image, row.error) for row in expected.rows]
    for row, known in zip(rows, expected.rows, strict=True):
        assert row["content"] == known.content
        if known.vector is None:
            assert row["embedding"] is None
        else:
            np.testing.assert_array_equal(row["embedding"], known.vector)
    assert rows[0]["content"] == content_hash(digit_images[0])


def test_parquet_has_types_and_says_where_it_comes_from(trained, digits_run, scans, tmp_path):
    output = tmp_path / "out.parquet"
    embed_images(trained, scans, output)
    schema = pq.read_schema(output)
    assert schema.names == ["image", "content", "embedding", "error"]
    assert schema.field("embedding").type == pa.list_(pa.float32(), 32)
    said = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    digest = hashlib.sha256((digits_run / "model.safetensors").read_bytes()).hexdigest()
    expected = {"model": "vit_micro_conv4_8", "digest": digest, "image_size": "8x8", "merge_tokens": "0"}
    assert {key: said[f"vitrail.{key}"] for key in expected} == expected
    embed_images(load(digits_run, image_size="12x16", merge_tokens=1), scans, output)
    assert pq.read_schema(output).metadata[b"vitrail.image_size"] == b"12x16"
    assert pq.read_schema(output).metadata[b"vitrail.merge_tokens"] == b"1"


@pytest.mark.parametrize("suffix", FORMATS)
def test_nothing_that_can_be_read(trained, tmp_path, suffix):
    (tmp_path / "empty.png").touch()
    output = tmp_path / f"out.{suffix}"
    done = embed_images(trained, [tmp_path / "empty.png"], output)
    assert (done.num_images, done.width) == (0, 32)
    (row,) = read(output)
    assert row["embedding"] is None
    assert row["error"].endswith("it is empty")
    assert embed_images(trained, [tmp_path / "empty.png"], None).vectors.shape == (0, 32)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_the_old_file(trained, scans, tmp_path, files_of_at_most, suffix):
    output = tmp_path / f"out.{suffix}"
    output.write_text("old")
    with files_of_at_most(500), pytest.raises(CheckpointError, match=r"out\.\w+ could not be written: File too large$"):
        embed_images(trained, scans, output)
    assert output.read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("suffix", FORMATS)
def test_memory_does_not_grow_with_the_images(trained, tmp_path, monkeypatch, digit_images, suffix):
    monkeypatch.setattr(embedding, "GROUP_VALUES", 320)
    monkeypatch.setattr(classifier_module, "CHUNK", 10)
    Image.fromarray(digit_images[0]).save(tmp_path / "one.png")

    def peak(number: int) -> int:
        tracemalloc.start()
        embed_images(trained, [tmp_path / "one.png"] * number, tmp_path / f"out.{suffix}")
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak(10)
    few, many = peak(20), peak(400)
    assert many < few + 400 * 32 * 4  # what the vectors alone would take


def test_the_verb_and_the_run(digits_run, scans, tmp_path):
    expected = vitrail.embed(digits_run, scans).vectors
    np.testing.assert_array_equal(vitrail.Run(digits_run).embed(tmp_path).vectors, expected)
    done = vitrail.embed(digits_run, str(tmp_path / "*.png"), output=tmp_path / "out.parquet")
    assert (done.num_images, done.rows) == (6, None)
    larger = vitrail.embed(digits_run, scans, image_size=16).vectors
    assert larger.shape == expected.shape
    assert np.abs(larger - expected).max() > 1e-3


def test_an_output_that_cannot_be_is_refused_first(digits_run, scans, tmp_path):
    with pytest.raises(ConfigError, match=r"out\.txt does not end in \.csv, .*; embeddings are written as one of"):
        vitrail.embed(digits_run, scans, output=tmp_path / "out.txt")
    with pytest.raises(ConfigError, match=r"nowhere does not exist; make that folder first"):
        vitrail.embed("no run", scans, output=tmp_path / "nowhere" / "out.csv")
