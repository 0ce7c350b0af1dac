import errno
import hashlib
import json
import os
import re
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from vitrail import checkpoint
from vitrail.checkpoint import (
    ModelCard,
    load_model,
    open_atomically,
    read_card,
    read_tensors,
    save_model,
    weights_digest,
    write_atomically,
    write_tensors,
)
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.models import build_model, model_config

CONFIG = model_config("vit_micro_conv4_8", embed_dim=16, depth=1, num_classes=2, mean=(0.25,), std=(0.5,))
CARD = ModelCard(
    model_name="vit_micro_conv4_8",
    model=CONFIG,
    classes=("Käfer", "\U0001f41d"),
    preprocess=Preprocess(image_size=(8, 8), channels=1, fit="crop"),
    temperature=1.5,
    reject_threshold=0.25,
    provenance={"dataset": "digits", "seed": 3, "nested": {"a": [1, None]}},
)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(CONFIG)


@pytest.fixture
def folder(tmp_path: Path, model: nn.Module) -> Path:
    path = tmp_path / "a run"
    path.mkdir()
    save_model(path, model.state_dict(), CARD)
    return path


def exactly(sentence):
    """A pattern that only this sentence matches."""
    return f"^{re.escape(sentence)}$"


# Writing


def test_text_is_utf_8_and_bytes_stay(tmp_path):
    path = tmp_path / "file with spaces é.txt"
    write_atomically(path, "première\n")
    assert path.read_bytes() == "première\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [*tmp_path.iterdir()] == [path]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, files_of_at_most):
    path = tmp_path / "model.safetensors"
    write_atomically(path, b"old" * 1000)
    with (
        files_of_at_most(5000),
        pytest.raises(CheckpointError, match=exactly(f"{path} could not be written: File too large")),
    ):
        write_atomically(path, b"new" * 100_000)
    assert path.read_bytes() == b"old" * 1000
    assert [*tmp_path.iterdir()] == [path]
    write_atomically(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_at_any_moment_leaves_the_old_file_whole(tmp_path, monkeypatch, call):
    path = tmp_path / "model.json"
    write_atomically(path, "old")

    def refuse(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(CheckpointError, match=exactly(f"{path} could not be written: Input/output error")):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_is_durable_before_it_takes_the_name_and_the_name_after(tmp_path, monkeypatch):
    done, replace, fsync = [], Path.replace, os.fsync

    def recorded_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def recorded_replace(path, target):
        done.append("rename")
        assert path.read_bytes() == b"whole"
        assert not target.exists()
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    write_atomically(tmp_path / "model.json", b"whole")
    assert done == ["file", "rename"] + ["folder"] * (os.name != "nt")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone/model.json", "No such file or directory"),
        ("file/model.json", "(Not a directory|No such file or directory)"),
    ],
)
def test_a_path_that_cannot_be_is_one_sentence(tmp_path, name, reason):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(tmp_path / name))} could not be written: {reason}$"):
        write_atomically(tmp_path / name, "x")


def test_a_folder_in_the_way_is_one_sentence_and_nothing_is_left(tmp_path):
    path = tmp_path / "model.json"
    path.mkdir()
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))} could not be written: .+"):
        write_atomically(path, "x")
    assert [*tmp_path.iterdir()] == [path]


def test_tensors_of_any_layout_come_back(tmp_path):
    tensors = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "parameter": nn.Parameter(torch.ones(2)),
        "whole": torch.tensor(5),
        "small": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    path = tmp_path / "tensors.safetensors"
    assert write_tensors(path, tensors) == path.read_bytes()
    again = read_tensors(path)
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor.detach())


def test_equal_tensors_are_equal_bytes(tmp_path):
    tensors = {"b": torch.ones(3), "a": torch.zeros(2)}
    first = write_tensors(tmp_path / "1", tensors)
    assert write_tensors(tmp_path / "2", dict(reversed(tensors.items()))) == first


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: b"PK" + content])
def test_damaged_tensors_are_one_sentence(tmp_path, damage):
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(damage(write_tensors(path, {"a": torch.zeros(2)})))
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))} is damaged or no safetensors file: [^\n]+$"):
        read_tensors(path)


def test_missing_tensors_are_one_sentence(tmp_path):
    path = tmp_path / "tensors.safetensors"
    with pytest.raises(CheckpointError, match=exactly(f"{path} could not be read: No such file or directory")):
        read_tensors(path)


# The model and its card


def test_a_model_comes_back_as_it_was(folder, model):
    again, card = load_model(folder)
    assert card == CARD
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again(images), model.eval()(images))
    assert again.normalize.mean.item() == 0.25


def test_the_files_are_safetensors_and_json(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    content = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert content["format_version"] == 1
    assert content["classes"] == ["Käfer", "\U0001f41d"]
    assert content["preprocess"] == {"image_size": [8, 8], "channels": 1, "fit": "crop", "crop_rate": 1.0}
    assert (content["temperature"], content["reject_threshold"]) == (1.5, 0.25)


def test_loading_leaves_the_callers_random_numbers(folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder)
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(
        CheckpointError, match=rf"^{re.escape(str(tmp_path))} holds no model\.json; it is no run, or its first epoch"
    ):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"could not be read: Expecting value.*"),
        ('{"format_version": 1', r"could not be read: .*"),
        ("[]", r"has format_version None; this Vitrail reads version 1"),
        ("{}", r"has format_version None; this Vitrail reads version 1"),
        ('{"format_version": 2}', r"has format_version 2; this Vitrail reads version 1"),
        ('{"format_version": 1}', r"is damaged: model_name: Field required"),
    ],
)
def test_a_damaged_card_is_one_sentence(folder, text, message):
    path = folder / "model.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))} {message}$"):
        read_card(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", 3, "classes: "),
        ("temperature", "hot", "temperature: "),
        ("surprise", 1, "surprise: Extra inputs"),
        ("model", {"embed_dim": -1}, r"model\.embed_dim: "),
        ("preprocess", {"image_size": [8, 8], "channels": 1, "fit": "stretch"}, r"preprocess\.fit: "),
    ],
)
def test_a_wrong_entry_is_named(folder, key, value, message):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}))
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))} is damaged: {message}[^\n]*$"):
        read_card(folder)


def test_a_card_that_is_no_text_is_one_sentence(folder):
    (folder / "model.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"model\.json could not be read: .*utf-8"):
        read_card(folder)


def test_weights_of_another_model_are_one_sentence(folder):
    save_model(folder, build_model(CONFIG.model_copy(update={"embed_dim": 32})).state_dict(), CARD)
    path = re.escape(str(folder / "model.safetensors"))
    with pytest.raises(CheckpointError, match=rf"^{path} does not fit its model\.json: [^\n]*size mismatch[^\n]*$"):
        load_model(folder)


def test_damaged_weights_are_one_sentence(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_model(folder)


def test_nothing_is_unpickled(folder, tmp_path):
    path = folder / "model.safetensors"
    torch.save({"head.bias": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"no safetensors file"):
        load_model(folder)
    assert not {"pickle", "torch.load"} & set(vars(checkpoint))


# Writing a part at a time


def test_parts_become_a_file_when_all_are_written(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    with open_atomically(path) as file:
        file.write(b"first ")
        assert path.read_bytes() == b"old"
        file.write(b"second")
    assert path.read_bytes() == b"first second"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt()])
def test_an_error_between_parts_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), open_atomically(path) as file:  # noqa: PT012
        file.write(b"first")
        raise error
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_the_digest_is_that_of_the_file(tmp_path, model):
    written = write_tensors(tmp_path / "weights.safetensors", model.state_dict())
    assert weights_digest(model.state_dict()) == hashlib.sha256(written).hexdigest()


def test_a_digest_is_of_what_weights_are_and_not_of_their_file() -> None:
    weights = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.tensor([0.5, -1.0]).half()}
    again = dict(reversed([(name, value.t().clone().t()) for name, value in weights.items()]))
    assert weights_digest(again) == weights_digest(weights)
    others = (
        {**weights, "head.bias": weights["head.bias"] + 1},
        {**weights, "head.bias": weights["head.bias"].float()},
        {**weights, "head.weight": weights["head.weight"].reshape(3, 2)},
        {"head.weight": weights["head.weight"]},
    )
    assert len({weights_digest(each) for each in (weights, *others)}) == 5
    assert weights_digest({"a": torch.zeros(2, 3, dtype=torch.bfloat16).t(), "b": torch.zeros(0), "c": torch.zeros(0)})


def test_weights_that_share_memory_are_written_each(tmp_path) -> None:
    tied = torch.arange(6.0)
    weights = {"a": tied, "b": tied, "c": tied[:4]}
    assert weights_digest(weights) == weights_digest({name: value.clone() for name, value in weights.items()})
    write_tensors(tmp_path / "weights.safetensors", weights)
    read = read_tensors(tmp_path / "weights.safetensors")
    torch.testing.assert_close(read, weights, rtol=0.0, atol=0.0)
