import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrail.data.cache import stamp_of
from vitrail.data.parquet import ParquetTable
from vitrail.data.table_columns import read_labels
from vitrail.data.table_files import DelimitedTable
from vitrail.data.table_images import check_listed, encoded_images, first_of_copies, listed_images
from vitrail.errors import DataError


@pytest.fixture
def table(tmp_path) -> DelimitedTable:
    (tmp_path / "t.csv").write_text("image,label\n" * 300, encoding="utf-8")
    return DelimitedTable(tmp_path / "t.csv")


def test_paths_begin_at_the_table(tmp_path, table, write_photo):
    inside, outside = write_photo(tmp_path / "a b" / "1.png"), write_photo(tmp_path.parent / "elsewhere.png")
    images = listed_images(table, "image", ["a b/1.png", " a b\\1.png", str(outside), outside.as_uri(), "./a b/../x"])
    assert images.names == ["a b/1.png", "a b/1.png", outside.as_posix(), outside.as_uri(), "./a b/../x"]
    assert images.identities[1:3] == ["a b/1.png", outside.as_posix()]
    assert images.identities[4] == "x"
    assert [images.read(row) for row in range(3)] == [inside, inside, outside]
    assert images.read(3) == outside
    assert [images.stamp(row) for row in (0, 2, 3)] == [stamp_of(path) for path in (inside, outside, outside)]
    assert images.path(4) == tmp_path / "a b" / ".." / "x"


def test_urls_are_fetched_when_they_are_read(table, monkeypatch):
    from vitrail.data import remote

    asked = []
    monkeypatch.setattr(remote, "read_url", lambda url: asked.append(url) or b"bytes")
    images = listed_images(table, "image", ["https://x.org/a.png?b=../c", "s3://bucket//a.png"])
    assert images.names == images.identities
    assert (images.path(0), images.stamp(0)) == (None, (0, 0, 0))
    check_listed(table, images, [0, 1])
    assert asked == []
    assert images.read(1) == b"bytes"
    assert asked == ["s3://bucket//a.png"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["a", "../b", "c/../../d"],
            r"t\.csv: 2 paths lead out of the table's folder, such as \.\./b in line 3; put the",
        ),
        (["..\\b"], r"t\.csv: 1 path leads out of the table's folder, such as \.\./b in line 2"),
        (
            ["a", "", None, " "],
            r"t\.csv: 3 rows have no image in the column 'image' \(line 3, line 4, line 5\); name one",
        ),
        (["a", 7, ""], r"t\.csv: the column 'image' holds 7 in line 3; an image is a path or a URL as text$"),
        (
            ["a", "ftp://x/y.png"],
            r"ftp://x/y\.png in line 3 is no URL that can be read; use one of http://, https://, s3",
        ),
        (["https://"], r"https:// in line 2 is no URL that can be read"),
    ],
)
def test_places_that_cannot_be_read_are_refused(table, values, message):
    with pytest.raises(DataError, match=message):
        listed_images(table, "image", values)


@pytest.mark.parametrize("count", [4, 1000])
def test_tables_that_mean_paths_from_elsewhere_are_refused(tmp_path, table, count):
    for number in range(count // 2):
        (tmp_path / f"{number}.png").write_bytes(b"")
    images = listed_images(table, "image", [f"{number}.png" for number in range(count)])
    check_listed(table, images, range(count))  # half of them may be missing
    more = listed_images(table, "image", [f"{number}.png" for number in range(count // 4, count + count // 4)])
    with pytest.raises(
        DataError,
        match=rf"t\.csv: {3 * count // 4:,} of its {count:,} images are not there \({count // 2}\.png, .*\); a path is "
        rf"looked for from the table's folder, the first as .*{count // 2}\.png$",
    ):
        check_listed(table, more, range(count))


def test_bytes_are_called_by_their_paths_if_each_has_another(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(buffer, "PNG")
    rows = [{"bytes": buffer.getvalue(), "path": name} for name in ("a.png", "b.png", "c.png")]
    for number, part in enumerate((rows[:2], rows[2:])):
        pq.write_table(pa.table({"image": part}), tmp_path / f"{number}.parquet")
    tables = [ParquetTable(tmp_path / f"{number}.parquet") for number in range(2)]
    images = encoded_images(tables, "image")
    assert images.names == ["a.png", "b.png", "c.png"]
    assert [images.stamp(row) for row in range(3)] == [stamp_of(tables[place].path) for place in (0, 0, 1)]
    twice = encoded_images([tables[0], tables[0]], "image")
    assert twice.names == ["0.parquet/00000", "0.parquet/00001"] * 2


def test_an_image_counts_once_in_each_split(table):
    images = listed_images(table, "image", ["a", "b", "./a", "a", "b"])
    labels = read_labels(table, ["x", "y", "x", "x", "y"], None)
    assert first_of_copies(table, images, labels, None) == [0, 1]
    assert first_of_copies(table, images, labels, ["train", "train", "train", "test", "train"]) == [0, 1, 3]


def test_an_image_has_one_label(table):
    images = listed_images(table, "image", ["a", "b", "./a"])
    with pytest.raises(
        DataError,
        match=r"t\.csv: \./a is 'x' in line 2 and 'z' in line 4; an image has one label, or a list of labels in J",
    ):
        first_of_copies(table, images, read_labels(table, ["x", "y", "z"], None), None)
    several = read_labels(table, [["x", "y"], [], ["y", "x"]], None)
    assert first_of_copies(table, images, several, None) == [0, 1]
    with pytest.raises(DataError, match=r"\./a is 'x and y' in line 2 and 'x' in line 4"):
        first_of_copies(table, images, read_labels(table, [["x", "y"], ["x"], ["x"]], None), ["train", "train", "test"])


def test_files_that_are_missing_are_broken_images(tmp_path, table, write_photo):
    images = listed_images(table, "image", ["gone.png"])
    assert images.read(0) == Path(tmp_path, "gone.png")
    with pytest.raises(OSError, match="No such file"):
        images.stamp(0)
