"""Weights files of other programs: what they hold, and what is refused; nothing in them ever runs."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitrail.errors import CheckpointError
from vitrail.weight_files import read_weights

WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.tensor([0.5, -1.0], dtype=torch.float16)}


class Marker:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def same(read: dict[str, torch.Tensor]) -> bool:
    return read.keys() == WEIGHTS.keys() and all(
        read[name].dtype == value.dtype and torch.equal(read[name], value) for name, value in WEIGHTS.items()
    )


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        (".safetensors", lambda path: save_file(WEIGHTS, path)),
        (".npz", lambda path: np.savez(path, **{name: value.numpy() for name, value in WEIGHTS.items()})),
        (".npz", lambda path: np.savez_compressed(path, **{name: value.numpy() for name, value in WEIGHTS.items()})),
        (".pth", lambda path: torch.save(OrderedDict(WEIGHTS), path)),
        (".pt", lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)),
        (".bin", lambda path: torch.save({"model": WEIGHTS, "epoch": 3}, path)),
        (".tar", lambda path: torch.save({"state_dict": {f"module.{name}": v for name, v in WEIGHTS.items()}}, path)),
        (
            ".pth",
            lambda path: torch.save({"model_state_dict": {f"_orig_mod.{n}": v for n, v in WEIGHTS.items()}}, path),
        ),
        (".PTH", lambda path: torch.save({"model": {"a": torch.ones(1)}, "model_ema": WEIGHTS}, path)),
    ],
)
def test_weights_are_read(tmp_path: Path, suffix: str, save) -> None:
    path = tmp_path / f"weights{suffix}"
    save(path)
    assert same(read_weights(path))


def test_numbers_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.array([1.0, 2.0], ">f4"))
    assert read_weights(tmp_path / "w.npz")["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("legacy", [True, False])
def test_what_would_run_code_never_does(tmp_path: Path, legacy: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    torch.save({"model": Marker(marker)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"w\.pth holds Python objects \(\w+\.system\), which could run code"):
        read_weights(path)
    np.savez(tmp_path / "w.npz", a=np.array([Marker(marker)], object))
    with pytest.raises(CheckpointError, match=r"^a of .*w\.npz holds Python objects, which could run code"):
        read_weights(tmp_path / "w.npz")
    path.write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(CheckpointError, match=r"was not downloaded whole, or is no file of torch\.save"):
        read_weights(path)
    assert not marker.exists()
    with (tmp_path / "raw").open("wb") as file:
        pickle.dump(Marker(marker), file)
    pickle.loads((tmp_path / "raw").read_bytes())
    assert marker.exists()  # it would have


def test_a_training_checkpoint_with_other_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"\(argparse.Namespace\), .* save the model's state dict alone"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.safetensors", lambda path: save_file({"a": torch.randn(500)}, path)),
        ("w.npz", lambda path: np.savez(path, a=np.random.default_rng(0).random(500))),
        ("w.pth", lambda path: torch.save({"a": torch.randn(500)}, path)),
        ("l.pth", lambda path: torch.save({"a": torch.randn(500)}, path, _use_new_zipfile_serialization=False)),
    ],
)
def test_files_cut_short_or_overwritten_are_refused(tmp_path: Path, name: str, save) -> None:
    path = tmp_path / name
    save(path)
    content = path.read_bytes()
    for damaged in (b"", content[:7], content[: len(content) // 2], content[:-300], b"no weights at all" * 20):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{name} is damaged") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
        assert not str(caught.value).endswith(".")


def test_a_file_that_would_unpack_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros(70_000_000, np.uint8))
    with pytest.raises(CheckpointError, match=r"w\.npz would unpack to 70,000,\d+ bytes, which no weights do"):
        read_weights(tmp_path / "w.npz")


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, a=np.zeros(10, np.float32))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(10,), ", b"(1e9), ").replace(b"'shape': (10,)", b"'shape': (99,)"))
    with pytest.raises(CheckpointError, match=r"w\.npz is damaged"):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("w.pth", [1, 2], "w.pth holds a list, not the named tensors of a model's state dict"),
        ("w.pth", {"epoch": 3}, "w.pth holds no weights; give a file with a model's state dict"),
        ("w.pth", {}, "w.pth holds a dict, not|w.pth holds no weights"),
    ],
)
def test_files_without_a_state_dict_are_refused(tmp_path: Path, name: str, content: object, pattern: str) -> None:
    torch.save(content, tmp_path / name)
    with pytest.raises(CheckpointError, match=pattern):
        read_weights(tmp_path / name)


def test_missing_files_and_other_files_are_refused(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.npz", "w.pth"):
        with pytest.raises(CheckpointError, match=f"{name} is not there"):
            read_weights(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"is no file of weights; they end in \.safetensors, \.npz, \.pth"):
        read_weights(tmp_path / "w.h5")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match=r"folder\.pth could not be read|folder\.pth is damaged"):
        read_weights(tmp_path / "folder.pth")
