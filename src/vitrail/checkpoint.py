"""The model's files, model.safetensors and model.json, written so that a crash leaves the old or the new one whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.models import build_model
from vitrail.models.families import AnyModelConfig

FORMAT_VERSION = 1


class ModelCard(BaseModel):
    """What model.json holds: all that is needed beside the weights to use a model, and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format_version: int = FORMAT_VERSION
    model_name: str
    model: AnyModelConfig
    classes: tuple[str, ...]
    preprocess: Preprocess
    temperature: float = 1.0
    reject_threshold: float | None = None
    multilabel: bool = False  # an image may have several labels, or none: a sigmoid for each in place of a softmax
    provenance: dict[str, Any] = {}


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one: new file, fsync, rename.

    Text becomes UTF-8; what UTF-8 cannot hold, as in a file name of other bytes, is written as its escape. Raises
    CheckpointError saying what the system said (no space, no permission); the old file, if there was one, is then
    untouched.
    """
    with open_atomically(path) as file:
        file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


@contextlib.contextmanager
def open_atomically(path: Path) -> Generator[BinaryIO]:
    """As `write_atomically`, for content that is written a part at a time; an error on the way leaves the old file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CheckpointError(f"{path} could not be written: {error.strerror or error}") from error
        raise


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no way to open a folder for that, and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> bytes:
    """Write named tensors as safetensors, atomically; gives the bytes written, for a checksum."""
    content = _to_bytes(tensors)
    write_atomically(path, content)
    return content


def weights_digest(tensors: dict[str, Tensor]) -> str:
    """The sha256, hexadecimal, of the file that `write_tensors` makes of these.

    It is equal for equal names, types, shapes and values, in whatever order and file they were.
    """
    return hashlib.sha256(_to_bytes(tensors)).hexdigest()


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    separate: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        separate[name] = own.clone() if own.data_ptr() in places else own  # safetensors refuses what shares memory
        places.add(own.data_ptr())
    return save_tensors(separate)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError if it is missing or damaged."""
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} could not be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


def save_model(folder: Path, weights: dict[str, Tensor], card: ModelCard) -> None:
    """Write model.safetensors and model.json into `folder`. Raises CheckpointError if the disk refuses."""
    write_tensors(folder / "model.safetensors", weights)
    save_card(folder, card)


def save_card(folder: Path, card: ModelCard) -> None:
    """Write model.json into `folder`. Raises CheckpointError if the disk refuses."""
    write_atomically(folder / "model.json", card.model_dump_json(indent=2) + "\n")


def read_card(folder: Path) -> ModelCard:
    """The model.json of `folder`. Raises CheckpointError if it is missing, damaged or of another format."""
    path = folder / "model.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no model.json; it is no run, or its first epoch never ended") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} could not be read: {error}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format_version {version}; this Vitrail reads version {FORMAT_VERSION}")
    try:
        return ModelCard.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<"))  # <vit>: which family
        raise CheckpointError(f"{path} is damaged: {key}: {first['msg']}") from None


def load_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """The model of a run or a folder written by `save_model`, in evaluation mode on the CPU, and its card.

    Raises CheckpointError if a file is missing or damaged, or the weights are not those of the card's model.
    """
    card = read_card(folder)
    weights = read_tensors(folder / "model.safetensors")
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away; the caller's draws stay
        model = build_model(card.model)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        problem = str(error).splitlines()[1].strip().rstrip(".")  # of all that differs, after a title
        raise CheckpointError(f"{folder / 'model.safetensors'} does not fit its model.json: {problem}") from None
    return model.eval(), card
