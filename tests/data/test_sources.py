import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrail.data.sources import open_dataset
from vitrail.errors import ConfigError, DataError


def write_idx(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split, count in (("train", 4), ("t10k", 2)):
        for kind, array in (("images", np.zeros((count, 3, 3), np.uint8)), ("labels", np.zeros(count, np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{split}-{kind}-idx{array.ndim}-ubyte").write_bytes(header + array.tobytes())
    return folder


def write_parquet(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("L", (3, 3)).save(buffer, "PNG")
    pq.write_table(pa.table({"image": [{"bytes": buffer.getvalue(), "path": "a.png"}] * 2, "label": [0, 1]}), path)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty current directory, and $VITRAIL_DATA beside it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("VITRAIL_DATA", str(tmp_path / "root"))
    return tmp_path / "here"


def test_digits_need_no_files(monkeypatch):
    monkeypatch.delenv("VITRAIL_DATA")
    dataset = open_dataset("digits")
    assert (dataset.name, dataset.classes, dataset.published) == ("digits", tuple("0123456789"), ("all",))
    assert len(dataset.read("all")) == 1797


def test_a_named_set_is_found_below_the_root(tmp_path):
    write_idx(tmp_path / "root" / "fashion_mnist")
    dataset = open_dataset("fashion_mnist")
    assert dataset.name == "fashion_mnist"
    assert dataset.classes[9] == "Ankle boot"
    assert len(dataset.read("train")) == 4


def test_a_named_set_may_be_parquet(tmp_path):
    write_parquet(tmp_path / "root" / "cifar10" / "plain_text" / "train-00000-of-00001.parquet")
    assert open_dataset("cifar10").classes[0] == "airplane"
    assert len(open_dataset("cifar10").read("train")) == 2


@pytest.mark.parametrize("as_text", [str, Path])
def test_folders_are_called_after_themselves(here, as_text):
    write_idx(here / "my scans")
    dataset = open_dataset(as_text("my scans"))
    assert (dataset.name, dataset.classes, dataset.published) == ("my scans", ("0",), ("train", "test"))
    assert open_dataset(as_text(here / "my scans")).name == "my scans"


def test_the_current_folder_has_a_name(here):
    write_parquet(here / "train.parquet")
    assert open_dataset(".").name == "here"


def test_a_file_is_one_set_without_splits(here):
    write_parquet(here / "train-00000-of-00001.parquet")
    dataset = open_dataset("train-00000-of-00001.parquet")
    assert (dataset.name, dataset.published) == ("train-00000-of-00001", ("all",))
    assert len(dataset.read("all")) == 2


def test_a_name_wins_over_a_folder(here, tmp_path):
    write_idx(here / "mnist")
    with pytest.raises(
        ConfigError, match=r"mnist does not exist, .*, or write \./mnist for the folder of that name here$"
    ):
        open_dataset("mnist")
    assert open_dataset("./mnist").classes == ("0",)
    write_idx(tmp_path / "root" / "mnist")
    assert open_dataset("mnist").classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "mnits",
            r"^No data set named 'mnits'\. Did you mean 'mnist'\? Names are digits, mnist, .*; a path works as well$",
        ),
        ("Fashion-MNIST", r"Did you mean 'fashion_mnist'\?"),
        ("zebra", r"^No data set named 'zebra'\. Names are digits"),
        ("", r"^No data set named ''\. Names are digits"),
        (
            "photos/mnist",
            r"^photos/mnist does not exist; a data set is one of digits, .*, a folder or a table$",
        ),
        ("gone.parquet", r"^gone\.parquet does not exist"),
        ("x" * 5000, "^No data set named"),
        (
            "cifar10",
            r"cifar10 does not exist, and .* is offline\); set VITRAIL_DATA to the folder that holds cifar10/$",
        ),
    ],
)
def test_what_does_not_exist_is_refused(data, message):
    with pytest.raises(ConfigError, match=message) as caught:
        open_dataset(data)
    assert caught.value.exit_code == 2


def test_a_root_that_is_not_set_is_explained(monkeypatch):
    monkeypatch.delenv("VITRAIL_DATA")
    message = (
        r"^\$VITRAIL_DATA is not set, and mnist could not be fetched \(ylecun/mnist is not in the cache, and this is "
        r"offline\); set VITRAIL_DATA to the folder that holds mnist/$"
    )
    with pytest.raises(ConfigError, match=message):
        open_dataset("mnist")


def test_an_empty_folder_is_refused(here):
    (here / "void").mkdir()
    with pytest.raises(
        ConfigError, match=r"^void is empty; a data set's folder holds a folder of images for each class, the four IDX"
    ):
        open_dataset("void")


def test_other_folders_and_files_are_refused(here):
    (here / "stuff").mkdir()
    (here / "stuff" / "table.xlsx").write_text("image,label\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"^stuff holds 1 file but no image \(table\.xlsx\); a data set's folder holds a folder of"
    ):
        open_dataset("stuff")
    with pytest.raises(DataError, match=r"table\.xlsx is no table \(\.csv, .*\); a data set is one, or a folder with"):
        open_dataset(str(Path("stuff", "table.xlsx")))


def test_importing_sources_loads_nothing_heavy():
    code = (
        "import sys, vitrail.data.sources, vitrail.data.splits, vitrail.data.images;"
        "print([m for m in ('torch', 'pyarrow', 'sklearn', 'pandas', 'datasets') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert result.stdout.strip() == "[]"
