"""Files of weights that other programs wrote: safetensors, NumPy's .npz and torch's .pth; none is unpickled."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitrail.errors import CheckpointError

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
SUFFIXES = (".safetensors", ".npz", *TORCH_SUFFIXES)
MOST_PACKED = 200  # times that a file may grow when it is unpacked; weights are hardly ever packed at all
SMALL_BYTES = 2**26  # and what may grow as it likes

# Where training programs keep the weights among other things; averaged ones first, which are those that were measured.
_WRAPPINGS = ("model_ema", "state_dict_ema", "model", "state_dict", "model_state_dict", "module", "net")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a weights file, on the CPU, whichever of `SUFFIXES` it ends in.

    Of a training checkpoint they are the model's, without the prefix that training on many GPUs, or compiled, adds.
    Raises CheckpointError if the file is missing, damaged, of another kind, or would have to be unpickled.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CheckpointError(f"{path} is no file of weights; they end in {', '.join(SUFFIXES)}")
    try:
        if suffix == ".safetensors":
            tensors = load_file(path)
        elif suffix == ".npz":
            tensors = _read_npz(path)
        else:
            tensors = _unwrapped(path, _read_torch(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not there; give the path of a weights file") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} could not be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise CheckpointError(f"{path} says that it holds more than fits into memory; it may be damaged") from error
    if not tensors:
        raise CheckpointError(f"{path} holds no weights; give a file with a model's state dict")
    return tensors


def _check_packing(path: Path) -> None:
    """Raise CheckpointError for an archive that is damaged, or would unpack to far more than its own size."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged or was not downloaded whole") from error
    if unpacked > max(SMALL_BYTES, MOST_PACKED * path.stat().st_size):
        raise CheckpointError(f"{path} would unpack to {unpacked:,} bytes, which no weights do; it is not read")


def _read_npz(path: Path) -> dict[str, Tensor]:
    _check_packing(path)
    tensors: dict[str, Tensor] = {}
    name = ""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                array = np.asarray(arrays[name])
                if array.dtype.kind in "fiub":
                    tensors[name] = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False).copy())
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, struct.error) as error:
        raise CheckpointError(f"{path} is damaged or was not downloaded whole") from error
    except (ValueError, TypeError) as error:
        if "allow_pickle" in str(error):
            raise CheckpointError(
                f"{name} of {path} holds Python objects, which could run code and are never unpickled; save arrays of "
                "numbers"
            ) from error
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error
    return tensors


def _read_torch(path: Path) -> Any:
    """What torch.save wrote, if it is made of tensors, numbers, texts and containers alone."""
    if zipfile.is_zipfile(path):
        _check_packing(path)
    try:
        with warnings.catch_warnings():  # about protocols of pickle that it may not know: then it raises
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # each of torch's formats, and each kind of damage, has errors of its own
        refused = re.search(r"(?:Unsupported|GLOBAL)\D*? ([A-Za-z_]\w*(?:\.\w+)+)", str(error))
        if refused is not None:
            raise CheckpointError(
                f"{path} holds Python objects ({refused.group(1)}), which could run code and are never unpickled; save "
                "the model's state dict alone, best as safetensors"
            ) from error
        raise CheckpointError(f"{path} is damaged, was not downloaded whole, or is no file of torch.save") from error


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict in what a program saved, without the prefixes of wrappers."""
    for _ in range(3):  # {"state_dict": {"model": ...}}
        inside = next(
            (content[key] for key in _WRAPPINGS if _is_mapping(content) and _is_mapping(content.get(key))), None
        )
        if inside is None:
            break
        content = inside
    if not _is_mapping(content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the named tensors of a model's state dict")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "_orig_mod."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _is_mapping(content: Any) -> bool:
    return isinstance(content, Mapping) and len(content) > 0


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
