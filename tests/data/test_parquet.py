import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrail.data import parquet
from vitrail.data.content import content_hash
from vitrail.data.idx import open_idx
from vitrail.data.parquet import EncodedImages, find_parquet_splits
from vitrail.data.preprocess import Preprocess, prepare
from vitrail.data.records import ReadOptions
from vitrail.data.tables import open_tables
from vitrail.errors import DataError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encode(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images, labels, names=None, image="image", label="label", extra=None) -> Path:
    """A file as the hub stores it; `images` are arrays, or bytes as they are to be stored."""
    encoded = [encode(array) if isinstance(array, np.ndarray) else array for array in images]
    columns = dict(extra or {})
    columns[image] = pa.array([{"bytes": data, "path": None} for data in encoded], IMAGE)
    if label:
        columns[label] = labels if isinstance(labels, pa.Array) else pa.array(labels)
    table = pa.table(columns)
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return path


def read(path: Path):
    return open_tables({"train": [path]}, "small").read("train")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_pixels_labels_and_class_names_survive(tmp_path, shape):
    arrays = noise(5, *shape)
    path = write(tmp_path / "train.parquet", arrays, [0, 2, 1, 1, 0], ["ant", "bee", "cat"])
    dataset = open_tables({"train": [path]}, "small")
    images = dataset.read("train")
    assert (dataset.name, dataset.classes, dataset.published) == ("small", ("ant", "bee", "cat"), ("train",))
    np.testing.assert_array_equal(images.pixels, arrays.reshape(5, 4, 5, -1))
    assert images.labels.tolist() == [0, 2, 1, 1, 0]
    assert images.labels.dtype == np.int64
    assert images.names[4] == "train.parquet/00004"


def test_shards_are_joined_in_order(tmp_path):
    arrays = noise(7, 4, 4)
    bounds = [(0, 3), (3, 4), (4, 7)]
    for shard in (2, 0, 1):
        start, stop = bounds[shard]
        name = f"train-0000{shard}-of-00003-0123abcd.parquet"
        write(tmp_path / name, arrays[start:stop], list(range(start, stop)), list("abcdefg"))
    images = open_tables(find_parquet_splits(tmp_path), "small").read("train")
    np.testing.assert_array_equal(images.pixels[..., 0], arrays)
    assert images.labels.tolist() == list(range(7))


@pytest.mark.parametrize("place", [".", "data", "plain_text"])
def test_splits_are_found_where_the_hub_puts_them(tmp_path, place):
    for name in ("train-00000-of-00001.parquet", "test.parquet", "val-00000-of-00001.parquet", "notes.parquet"):
        write(tmp_path / place / name, noise(1, 2, 2), [0])
    splits = find_parquet_splits(tmp_path)
    assert {split: [path.name for path in paths] for split, paths in splits.items()} == {
        "train": ["train-00000-of-00001.parquet"],
        "validation": ["val-00000-of-00001.parquet"],
        "test": ["test.parquet"],
    }


def test_two_subfolders_are_not_chosen_between(tmp_path):
    for place in ("plain", "augmented"):
        write(tmp_path / place / "train.parquet", noise(1, 2, 2), [0])
    assert find_parquet_splits(tmp_path) == {}


def test_missing_and_doubled_shards_are_named(tmp_path):
    write(tmp_path / "train-00000-of-00003.parquet", noise(1, 2, 2), [0])
    write(tmp_path / "train-00002-of-00003.parquet", noise(1, 2, 2), [0])
    with pytest.raises(DataError, match="shard 1 is missing of the 3 that belong to train-00000-of-00003"):
        find_parquet_splits(tmp_path)
    write(tmp_path / "train-00001-of-00003.parquet", noise(1, 2, 2), [0])
    write(tmp_path / "train-00001-of-00003-again.parquet", noise(1, 2, 2), [0])
    with pytest.raises(DataError, match="a shard is there twice of the 3"):
        find_parquet_splits(tmp_path)


def test_the_image_column_is_found_by_type_and_known_names_come_first(tmp_path):
    arrays, others = noise(2, 3, 3), noise(2, 3, 3, seed=1)
    other = pa.array([{"bytes": encode(array), "path": None} for array in others], IMAGE)
    extra = {"image_id": pa.array([1, 2]), "path": pa.array(["a", "b"])}
    for column, more in (("img", {"mask": other}), ("photo", {})):
        path = write(tmp_path / f"{column}.parquet", arrays, [0, 1], image=column, extra=extra | more)
        np.testing.assert_array_equal(read(path).pixels[..., 0], arrays)
    path = write(tmp_path / "two.parquet", arrays, [0, 1], image="photo", extra={"mask": other})
    with pytest.raises(
        DataError,
        match=r"several columns that may hold the images, mask, photo; say which with --set data\.image_column=mask$",
    ):
        read(path)
    chosen = open_tables({"train": [path]}, "small", options=ReadOptions(image_column="mask")).read("train")
    np.testing.assert_array_equal(chosen.pixels[..., 0], others)


@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_label_columns_are_found(tmp_path, label):
    path = write(tmp_path / "a.parquet", noise(2, 3, 3), [1, 0], ["x", "y"], label=label)
    assert read(path).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([7, 3, 3, 10], ("3", "7", "10"), [1, 0, 0, 2]),
        (["dog", "cat", "cat", "dog"], ("cat", "dog"), [1, 0, 0, 1]),
        ([True, False, False, True], ("False", "True"), [1, 0, 0, 1]),
        (pa.array(["b", "a", "b", "b"]).dictionary_encode(), ("a", "b"), [1, 0, 1, 1]),
    ],
)
def test_without_names_the_sorted_values_are_the_classes(tmp_path, labels, classes, expected):
    path = write(tmp_path / "a.parquet", noise(4, 3, 3), labels)
    dataset = open_tables({"all": [path]}, "a")
    assert dataset.classes == classes
    assert dataset.read("all").labels.tolist() == expected


def test_given_names_count_where_the_file_has_none(tmp_path):
    path = write(tmp_path / "a.parquet", noise(2, 3, 3), [1, 0])
    assert open_tables({"all": [path]}, "a", ("x", "y", "z")).classes == ("x", "y", "z")
    named = write(tmp_path / "b.parquet", noise(2, 3, 3), [1, 0], ["p", "q"])
    assert open_tables({"all": [named]}, "a", ("x", "y")).classes == ("p", "q")


def test_labels_may_be_the_names_themselves(tmp_path):
    path = write(tmp_path / "a.parquet", noise(3, 3, 3), ["y", "x", "y"], ["y", "x"])
    assert read(path).labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("metadata", [b"no json", b"[]", b'{"info": {"features": {"label": {"names": null}}}}'])
def test_other_metadata_is_no_hindrance(tmp_path, metadata):
    path = write(tmp_path / "a.parquet", noise(2, 3, 3), [5, 4])
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": metadata}), path)
    assert open_tables({"all": [path]}, "a").classes == ("4", "5")


def test_grey_among_colour_becomes_colour(tmp_path):
    grey, colour = noise(1, 3, 3)[0], noise(1, 3, 3, 3)[0]
    images = read(write(tmp_path / "a.parquet", [grey, colour], [0, 1]))
    assert images.pixels.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(images.pixels[0], np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(images.pixels[1], colour)


def test_images_may_be_of_any_sizes(tmp_path):
    arrays = [noise(1, 3, 4)[0], noise(1, 30, 20, 3)[0], noise(1, 8, 8)[0]]
    path = write(tmp_path / "a.parquet", arrays, [0, 1, 0])
    dataset = open_tables({"train": [path]}, "small")
    assert dataset.shape == (8, 8, 3)
    size = Preprocess(image_size=(6, 5), channels=3, fit="crop")
    images = dataset.prepared("train", size)
    for array, pixels, content in zip(arrays, images.pixels, images.hashes, strict=True):
        np.testing.assert_array_equal(pixels, prepare(Image.fromarray(array), size))
        assert content == content_hash(array)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoded"


@pytest.mark.parametrize("held", [2**28, 0])
@pytest.mark.parametrize("limit", [2**26, 2000, 1])
def test_row_groups_of_any_size_are_read_in_any_order(tmp_path, monkeypatch, own_cache, limit, held):
    """Whole, or through windows where a group is larger than `limit`; then from copies if not all may be `held`."""
    monkeypatch.setattr(parquet, "WINDOW_BYTES", limit)
    monkeypatch.setattr(parquet, "HELD_BYTES", held)
    arrays = noise(23, 9, 9)
    paths = [tmp_path / f"train-0000{shard}-of-00002.parquet" for shard in range(2)]
    write(paths[0], arrays[:10], [0] * 10)
    pq.write_table(pq.read_table(write(paths[1], arrays[10:], [0] * 13)), paths[1], row_group_size=13)
    images = EncodedImages(paths, "image")
    assert len(images) == 23
    order = [*range(23), 22, 0, 11, *np.random.default_rng(0).permutation(23).tolist()]
    assert [images.read(row) for row in order] == [encode(arrays[row]) for row in order]
    if held or limit < 2**26:  # else most are kept
        assert len([*own_cache.glob("*.bin")]) == (0 if held else 2)


def one_group(path: Path, values) -> Path:
    rows = [value if isinstance(value, dict) or value is None else {"bytes": value, "path": None} for value in values]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE)}), path)
    return path


def test_a_large_group_is_gone_through_once_for_any_order(tmp_path, monkeypatch, own_cache, caplog):
    """And not again by the next process."""
    monkeypatch.setattr(parquet, "WINDOW_BYTES", 2000)
    monkeypatch.setattr(parquet, "HELD_BYTES", 0)
    caplog.set_level("INFO", "vitrail")
    values = [encode(array) for array in noise(40, 20, 20)]
    values[11], values[12] = None, {"bytes": None, "path": "ä.png"}
    path = one_group(tmp_path / "a.parquet", values)
    images = EncodedImages([path], "image")
    begun = []
    batches = images._batches
    monkeypatch.setattr(images, "_batches", lambda group: begun.append(group.number) or batches(group))
    values[12] = "ä.png"
    order = [row for near in range(10, 20) for row in (39, near)]
    assert [images.read(row) for row in order] == [values[row] for row in order]
    assert len(begun) == parquet.NUM_JUMPS + 1  # from the start for each jump until the last, for which it is copied
    assert [record.message.split(",")[0] for record in caplog.records] == [f"Copying the images of {path}"]
    again = EncodedImages([path], "image")
    monkeypatch.setattr(again, "_batches", None)
    assert [again.read(row) for row in order] == [values[row] for row in order]


def test_passes_in_order_copy_nothing(tmp_path, monkeypatch, own_cache):
    """Also by several threads, which are some rows apart."""
    monkeypatch.setattr(parquet, "WINDOW_BYTES", 500)
    monkeypatch.setattr(parquet, "HELD_BYTES", 0)
    images = EncodedImages([one_group(tmp_path / "a.parquet", [encode(array) for array in noise(64, 9, 9)])], "image")
    for _ in range(5):
        for row in range(1, 64, 2):
            images.read(row)
            images.read(row - 1)
    assert not own_cache.exists()


@pytest.mark.parametrize("refusal", [OSError(28, "No space left on device"), pa.ArrowInvalid("torn")])
def test_where_no_copy_can_be_made_images_are_read_as_before(tmp_path, monkeypatch, own_cache, caplog, refusal):
    def refuse(*_):
        raise refusal

    monkeypatch.setattr(parquet, "WINDOW_BYTES", 2000)
    monkeypatch.setattr(parquet, "HELD_BYTES", 0)
    monkeypatch.setattr(parquet, "make_copy", refuse)
    values = [encode(array) for array in noise(40, 20, 20)]
    images = EncodedImages([one_group(tmp_path / "a.parquet", values)], "image")
    order = [row for near in range(10, 20) for row in (39, near)]
    assert [images.read(row) for row in order] == [values[row] for row in order]
    (record,) = caplog.records
    reason = r"No space left on device|it is damaged \(torn\)"
    assert re.search(rf"a\.parquet are not copied, so reading them in any order is slow: ({reason})$", record.message)


def test_going_through_the_rows_reads_each_part_once(tmp_path, monkeypatch):
    """Also where one thread is some rows behind another."""
    images = EncodedImages([write(tmp_path / "a.parquet", noise(20, 9, 9), [0] * 20)], "image")
    loaded = []
    whole = images._load_whole
    monkeypatch.setattr(images, "_load_whole", lambda group: loaded.append(group.number) or whole(group))
    for row in range(20):
        images.read(row)
        images.read(max(0, row - 5))
    assert loaded == list(range(10))


def test_images_may_lie_beside_the_file(tmp_path):
    arrays = noise(3, 4, 4)
    Image.fromarray(arrays[1]).save(tmp_path / "one.png")
    rows = [{"bytes": encode(arrays[0]), "path": "0.png"}, {"bytes": None, "path": "one.png"}, encode(arrays[2])]
    rows[2] = {"bytes": rows[2], "path": "2.png"}
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE), "label": [0, 1, 0]}), path)
    images = read(path)
    assert images.names == ("0.png", "one.png", "2.png")
    np.testing.assert_array_equal(images.pixels[..., 0], arrays)
    pq.write_table(pa.table({"image": [encode(array) for array in arrays], "label": [0, 1, 0]}), path)
    np.testing.assert_array_equal(read(path).pixels[..., 0], arrays)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (encode(noise(1, 30, 30)[0])[:400], r"a\.parquet/00003 is not an image that can be read: it ends too early"),
        (b"text", "is not an image that can be read: it is not in an image format that is known"),
        (b"", "is not an image that can be read: it is empty"),
        (None, r"^row 3 of .*a\.parquet has no image bytes$"),
    ],
)
def test_a_bad_image_is_named_by_its_row(tmp_path, bad, message):
    path = write(tmp_path / "a.parquet", [*noise(3, 30, 30), bad], [0, 1, 0, 1])
    dataset = open_tables({"all": [path]}, "small")
    assert dataset.read("all").labels.tolist() == [0, 1, 0]
    ((name, reason),) = dataset.broken["all"]
    assert name == "a.parquet/00003"
    assert re.search(message, reason)


def test_a_missing_image_is_named_by_its_row(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [{"bytes": encode(noise(1, 3, 3)[0]), "path": "a.png"}, None, {"bytes": None, "path": "gone.png"}]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE), "label": [0, 1, 1]}), path)
    dataset = open_tables({"all": [path]}, "small")
    dataset.read("all")
    reasons = [reason for _, reason in dataset.broken["all"]]
    assert reasons[0].endswith("a.parquet has no image bytes")
    assert reasons[1].endswith("a.parquet has no image bytes, and gone.png is not beside the file")


@pytest.mark.parametrize("wrong", [-1, 2])
def test_labels_outside_the_named_classes_are_refused(tmp_path, wrong):
    path = write(tmp_path / "a.parquet", noise(3, 3, 3), [0, wrong, 1], ["x", "y"])
    with pytest.raises(
        DataError, match=rf"a\.parquet: the label of row 1 is '{wrong}', none of the 2 classes \(numbers from 0 to 1\)"
    ):
        read(path)


def test_labels_that_training_does_not_know_are_refused(tmp_path):
    train = write(tmp_path / "train.parquet", noise(2, 3, 3), ["x", "y"])
    test = write(tmp_path / "test.parquet", noise(2, 3, 3), ["x", "z"])
    dataset = open_tables({"train": [train], "test": [test]}, "small")
    dataset.read("train")
    with pytest.raises(DataError, match=r"test\.parquet: the label of row 1 is 'z', none of the 2 classes"):
        dataset.read("test")


@pytest.mark.parametrize("names", [None, ["x", "y"]])
def test_missing_labels_are_refused(tmp_path, names):
    path = write(tmp_path / "a.parquet", noise(3, 3, 3), [0, None, 1], names)
    with pytest.raises(DataError, match=r"a\.parquet: 1 row has no label \(row 1\); give"):
        read(path)


def test_labels_of_other_types_are_refused(tmp_path):
    path = write(tmp_path / "a.parquet", noise(2, 3, 3), [0.25, 1.0])
    with pytest.raises(DataError, match=r"a\.parquet: the label of row 0 is 0\.25; a label is a class's name or whole"):
        open_tables({"all": [path]}, "a")


def test_lists_are_several_labels(tmp_path):
    path = write(tmp_path / "a.parquet", noise(3, 3, 3), [[0, 2], [1], []], None)
    dataset = open_tables({"all": [path]}, "a", ("x", "y", "z"))
    assert (dataset.multilabel, dataset.classes) == (True, ("x", "y", "z"))
    assert dataset.read("all").labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    feature = {"feature": {"names": ["p", "q", "r"], "_type": "ClassLabel"}, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    assert open_tables({"all": [path]}, "a").classes == ("p", "q", "r")


def test_missing_columns_are_named(tmp_path):
    path = write(tmp_path / "a.parquet", noise(1, 3, 3), [0], label=None, extra={"weight": pa.array([1])})
    with pytest.raises(
        DataError,
        match=r"a\.parquet has no column named label, labels, class or the like; its columns are weight, image",
    ):
        open_tables({"all": [path]}, "a")
    pq.write_table(pa.table({"picture": ["a.png"], "label": [0]}), path)
    with pytest.raises(DataError, match=r"has no column named image, .*; its columns are picture, label: say which"):
        open_tables({"all": [path]}, "a")
    good = [write(tmp_path / f"train-0000{shard}-of-00002.parquet", noise(1, 3, 3), [0]) for shard in range(2)]
    write(good[1], noise(1, 3, 3), [0], label="other")
    with pytest.raises(DataError, match=r"00001-of-00002\.parquet has no column 'label'; its columns are image, other"):
        open_tables({"train": good}, "a")


def test_files_without_rows_are_refused(tmp_path):
    path = write(tmp_path / "a.parquet", [], pa.array([], pa.int64()), ["x"])
    with pytest.raises(DataError, match=r"a\.parquet holds no image"):
        read(path)


def test_damaged_files_are_refused(tmp_path):
    path = write(tmp_path / "a.parquet", noise(4, 20, 20), [0, 1, 0, 1], ["x", "y"])
    good = path.read_bytes()
    for bad in (b"", b"PAR1 is not all", good[:-40], good[:100]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"a\.parquet is not a Parquet file that can be read; download"):
            open_tables({"all": [path]}, "a")
    path.write_bytes(good[:4] + bytes(400) + good[404:])
    dataset = open_tables({"all": [path]}, "a")
    with contextlib.suppress(DataError):  # where it hits all of them
        dataset.read("all")
    for _, reason in dataset.broken["all"]:
        assert re.search(
            r"a\.parquet is damaged: its column 'image' cannot be read; download or write it again$", reason
        )
    assert dataset.broken["all"]


def test_reading_training_images_opens_no_test_file(tmp_path):
    write(tmp_path / "train.parquet", noise(2, 3, 3), [0, 1])
    (tmp_path / "test.parquet").write_bytes(b"not to be opened")
    dataset = open_tables(find_parquet_splits(tmp_path), "small")
    assert dataset.published == ("train", "test")
    assert len(dataset.read("train")) == 2
    with pytest.raises(DataError, match=r"test\.parquet is not a Parquet file"):
        dataset.read("test")


@pytest.mark.parametrize(("split", "count"), [pytest.param("train", 60000, marks=pytest.mark.slow), ("test", 10000)])
def test_mnist_equals_its_idx_files(data_folder, split, count):
    files = open_idx(data_folder("mnist"), "mnist")
    table = open_tables(find_parquet_splits(data_folder("mnist-parquet")), "mnist")
    assert files.classes == table.classes
    ours, theirs = files.read(split), table.read(split)
    assert len(ours) == len(theirs) == count
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
