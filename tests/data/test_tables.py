import io
import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions
from vitrail.data.sources import has_columns, open_dataset
from vitrail.data.tables import find_table_splits, list_table_images, open_tables
from vitrail.errors import ConfigError, DataError

SIZE = Preprocess(image_size=(8, 8), channels=3, fit="crop")
ROWS = [(f"img/{label}/{number:03d}.png", label) for label in ("ant", "bee") for number in range(3)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path, write_tree):
    """A folder with img/ant/000.png ... img/bee/002.png."""
    return write_tree(tmp_path / "my set", {"img/ant": 3, "img/bee": 3})


def write(path, rows, columns=("image", "label")):
    """The rows as a table of the kind that the path's suffix names."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows), encoding="utf-8")
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        path.write_text("\n".join(delimiter.join(map(str, row)) for row in [columns, *rows]), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_is_what_its_folders_are(folder, suffix):
    table = write(folder / f"list{suffix}", ROWS[::-1])
    dataset = open_dataset(table)
    assert (dataset.name, dataset.classes, dataset.published, dataset.grows) == ("list", ("ant", "bee"), ("all",), True)
    images, expected = dataset.prepared("all", SIZE), open_dataset(folder / "img").prepared("all", SIZE)
    assert images.names == tuple(path for path, _ in ROWS[::-1])
    np.testing.assert_array_equal(images.pixels[::-1], expected.pixels)
    assert images.hashes[::-1] == expected.hashes
    assert images.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert images.groups is None


def test_columns_that_are_named_are_read(folder):
    rows = [(label, path, "x", number) for number, (path, label) in enumerate(ROWS)]
    table = write(folder / "list.csv", rows, ("kind", "photo", "label", "patient"))
    options = ReadOptions(image_column="photo", label_column="kind", group_column="patient")
    images = open_dataset(table, options=options).prepared("all", SIZE)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.groups == tuple("012345")


def test_a_column_of_splits_divides_a_table(folder):
    rows = [(*row, ("train", "val", "test")[number % 3]) for number, row in enumerate(ROWS)]
    dataset = open_dataset(write(folder / "list.csv", rows, ("image", "label", "split")))
    assert dataset.published == ("train", "validation", "test")
    for number, split in enumerate(dataset.published):
        images = dataset.prepared(split, SIZE)
        assert images.names == (ROWS[number][0], ROWS[number + 3][0])
        assert images.labels.tolist() == [0, 1]
    other = write(folder / "other.csv", rows, ("image", "label", "part"))
    assert open_dataset(other).published == ("all",)
    assert open_dataset(other, options=ReadOptions(split_column="part")).published == dataset.published


def test_a_label_that_training_has_not_is_refused(folder):
    rows = [(*row, "train") for row in ROWS] + [("img/ant/009.png", "cow", "test")]
    dataset = open_dataset(write(folder / "list.csv", rows, ("image", "label", "split")))
    assert dataset.classes == ("ant", "bee")
    with pytest.raises(
        DataError, match=r"list\.csv: the label of line 8 is 'cow', none of the 2 classes \(ant, bee\)$"
    ):
        dataset.prepared("train", SIZE)


def test_lists_of_one_label_and_single_labels_stand_for_one_another(folder):
    write(folder / "train.jsonl", [(path, [label]) for path, label in ROWS])
    write(folder / "test.jsonl", ROWS)
    dataset = open_dataset(folder)
    assert dataset.multilabel
    assert dataset.prepared("test", SIZE).labels.tolist() == [[1, 0]] * 3 + [[0, 1]] * 3
    write(folder / "train.jsonl", ROWS)
    write(folder / "test.jsonl", [(path, [label]) for path, label in ROWS])
    dataset = open_dataset(folder)
    assert not dataset.multilabel
    assert dataset.prepared("test", SIZE).labels.tolist() == [0] * 3 + [1] * 3


@pytest.mark.parametrize("wrong", [[], ["ant", "bee"]])
def test_lists_are_refused_where_training_has_single_labels(folder, wrong):
    write(folder / "train.jsonl", ROWS)
    write(folder / "test.jsonl", [(ROWS[0][0], ["ant"]), (ROWS[1][0], wrong)])
    with pytest.raises(
        DataError,
        match=rf"test\.jsonl: line 2 has a list of {len(wrong)} labels, and each image to train on has one label; ",
    ):
        open_dataset(folder).prepared("test", SIZE)


def test_a_folder_may_have_a_table_for_each_split(folder):
    write(folder / "train.csv", ROWS[:5])
    write(folder / "Val.jsonl", ROWS[5:])
    (folder / "test.tsv").write_text("not to be opened", encoding="utf-8")
    dataset = open_dataset(folder)
    assert (dataset.name, dataset.published) == ("my set", ("train", "validation", "test"))
    assert dataset.prepared("train", SIZE).labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.prepared("validation", SIZE).labels.tolist() == [1]
    with pytest.raises(DataError, match=r"test\.tsv has no column named image"):
        dataset.prepared("test", SIZE)
    with pytest.raises(
        ConfigError, match=r"^data\.split_column=x is for one table, and my set has one for each of train"
    ):
        open_dataset(folder, options=ReadOptions(split_column="x"))
    write(folder / "train.tsv", ROWS)
    with pytest.raises(DataError, match=r"my set has several tables of train, train\.csv, train\.tsv; keep one$"):
        find_table_splits(folder)


def test_a_table_of_metadata_is_read_where_there_are_no_class_folders(tmp_path, folder, write_tree):
    flat = write_tree(tmp_path / "flat", {"images": 2})
    rows = [("images/000.png", "ant"), ("images/001.png", "bee")]
    write(flat / "metadata.csv", rows, ("file_name", "label"))
    assert open_dataset(flat).classes == ("ant", "bee")
    assert has_columns(flat)
    (flat / "metadata.csv").rename(flat / "labels.csv")
    with pytest.raises(
        DataError,
        match=r"flat holds no class folders, and beside its images labels\.csv; name the table .*labels\.csv$",
    ):
        open_dataset(flat)
    write(folder / "metadata.csv", ROWS)
    assert open_dataset(folder).classes == ("img/ant", "img/bee")


def test_tables_of_paths_may_come_in_shards(folder):
    for number, part in enumerate((ROWS[:2], ROWS[2:])):
        write(folder / f"train-0000{number}-of-00002.parquet", part)
    dataset = open_dataset(folder)
    assert dataset.prepared("train", SIZE).names == tuple(path for path, _ in ROWS)
    write(folder / "train-00001-of-00002.parquet", [("img/bee/000.png", "ant"), ("img/bee/000.png", "bee")])
    with pytest.raises(
        DataError,
        match=r"img/bee/000\.png is 'ant' in row 0 of train-00001-of-00002\.parquet and 'bee' in row 1 of train-0",
    ):
        open_dataset(folder)


def test_labels_may_be_lists(folder):
    rows = [(path, [label] if number % 2 else [label, "small"]) for number, (path, label) in enumerate(ROWS)]
    for suffix in (".jsonl", ".parquet"):
        dataset = open_dataset(write(folder / f"list{suffix}", rows))
        assert (dataset.multilabel, dataset.classes) == (True, ("ant", "bee", "small"))
        assert dataset.prepared("all", SIZE).labels.tolist()[:2] == [[1, 0, 1], [1, 0, 0]]
    text = write(folder / "list.csv", [(path, "|".join(labels)) for path, labels in rows])
    split = open_dataset(text, options=ReadOptions(label_separator="|"))
    assert (split.multilabel, split.classes) == (True, dataset.classes)
    assert not open_dataset(text).multilabel


def test_rows_of_one_image_count_once_and_that_is_said(folder, caplog):
    table = write(folder / "list.csv", [*ROWS, ROWS[0], ("./" + ROWS[1][0], "ant")])
    with caplog.at_level(logging.INFO, "vitrail"):
        assert len(open_dataset(table).prepared("all", SIZE)) == 6
    assert "list.csv: 2 rows name an image again, with the same label; each image counts once" in caplog.text


def test_missing_files_are_broken_images(folder):
    (folder / ROWS[0][0]).unlink()
    dataset = open_dataset(write(folder / "list.csv", ROWS))
    assert len(dataset.prepared("all", SIZE)) == 5
    assert dataset.broken["all"] == ((ROWS[0][0], f"{ROWS[0][0]} does not exist"),)


def test_what_changed_is_read_again(folder, write_photo):
    table = write(folder / "list.csv", ROWS)
    before = open_dataset(table).prepared("all", SIZE)
    write_photo(folder / ROWS[0][0], seed=99)
    after = open_dataset(table).prepared("all", SIZE)
    assert before.hashes[0] != after.hashes[0]
    assert before.hashes[1:] == after.hashes[1:]


def test_another_table_at_the_same_place_is_another_set(tmp_path):
    for seed in (0, 1):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        rows = [(buffer.getvalue(), "ant"), (buffer.getvalue(), "bee")]
        dataset = open_tables({"all": [write(tmp_path / "list.parquet", rows)]}, "list")
        np.testing.assert_array_equal(dataset.prepared("all", SIZE).pixels[1], pixels)


def test_tables_without_rows_are_refused(tmp_path):
    for name, text in (("a.csv", "image,label\n"), ("b.tsv", "image\tlabel\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=rf"{name} holds no image: it has names of columns, and no row$"):
            open_dataset(tmp_path / name)


def test_the_files_of_a_table_are_listed(folder):
    table = write(folder / "list.csv", [(path,) for path, _ in (*ROWS, ROWS[0], ("gone.png", ""))], ("image",))
    assert list_table_images(table) == [folder / path for path, _ in (*ROWS, ("gone.png", ""))]
    with pytest.raises(ConfigError, match=r"urls\.csv lists URLs, as in line 3; name image files, folders or a table"):
        list_table_images(write(folder / "urls.csv", [("a.png",), ("http://x/y.png",)], ("image",)))
    with pytest.raises(ConfigError, match=r"b\.parquet holds images as bytes; name image files"):
        list_table_images(write(folder / "b.parquet", [(b"x",)], ("image",)))
