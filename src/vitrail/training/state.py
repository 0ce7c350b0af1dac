"""What training must remember to go on exactly: weights, their running mean, optimizers, place and counters.

A checkpoint is two files, step-N.safetensors and step-N.json. The JSON is written last and holds the checksum of the
tensors and the counters, so a checkpoint exists whole or not at all; the last two are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from vitrail.checkpoint import write_atomically, write_tensors
from vitrail.errors import CheckpointError

KEPT = 2


@dataclass
class Counters:
    """The numbers of a training under way."""

    step: int = 0
    """optimizer steps done"""
    epoch: int = 0
    """epochs done, their evaluation included"""
    train_seconds: float = 0.0
    """time of steps and their data alone"""
    evaluation_seconds: float = 0.0
    """time of validation"""
    compile_seconds: float = 0.0
    """time of torch.compile and of its first step"""
    wall_seconds: float = 0.0
    """time since the command's start, those of earlier commands on the run included"""
    loss_sum: float = 0.0
    """sum of the losses since the last line in metrics.jsonl"""
    correct_sum: float = 0.0
    """right answers on training images since then"""
    logged_step: int = 0
    """step of that line"""
    best_accuracy: float = -1.0
    """highest validation accuracy so far, or what else the best epoch is chosen by"""
    best_loss: float | None = None
    """validation loss at it"""
    best_epoch: int = 0
    """epoch that had it, counted from 1"""
    stopped_early: bool = False
    """whether early stopping has ended the run"""


@dataclass
class TrainingState:
    """Everything that changes during training."""

    model: nn.Module
    averaged: nn.Module | None
    optimizers: list[torch.optim.Optimizer]
    counters: Counters

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under a name that does not depend on where it is in memory."""
        for name, tensor in self.model.state_dict().items():
            yield f"model.{name}", tensor
        if self.averaged is not None:
            for name, tensor in self.averaged.state_dict().items():
                yield f"averaged.{name}", tensor
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        for index, optimizer in enumerate(self.optimizers):
            for parameter, values in optimizer.state.items():
                for key, value in values.items():
                    if isinstance(value, Tensor):
                        yield f"optimizers.{index}.{key}.{names[parameter]}", value

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over the tensors that `named_tensors` gave. Raises CheckpointError if they are of another model."""
        try:
            self.model.load_state_dict(_under("model.", tensors))
            if self.averaged is not None:
                self.averaged.load_state_dict(_under("averaged.", tensors))
        except RuntimeError as error:
            raise CheckpointError(f"The checkpoint is of another model: {' '.join(str(error).split())}") from None
        parameters = dict(self.model.named_parameters())
        for index, optimizer in enumerate(self.optimizers):
            for name, tensor in _under(f"optimizers.{index}.", tensors).items():
                key, _, parameter_name = name.partition(".")
                parameter = parameters[parameter_name]
                # Adam counts steps in a scalar that stays on the CPU unless fused on another device.
                optimizer.state[parameter][key] = tensor.to(parameter.device).clone()

    def is_finite(self) -> bool:
        """Whether every weight, and every statistic kept beside the weights, is a finite number."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.model.state_dict().values())


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def save_checkpoint(folder: Path, state: TrainingState) -> None:
    """Write checkpoint step-N and remove all but the last two. Raises CheckpointError if the disk refuses.

    The older checkpoints stay until the new one is whole.
    """
    stem, counters = f"step-{state.counters.step:09d}", asdict(state.counters)
    content = write_tensors(folder / f"{stem}.safetensors", dict(state.named_tensors()))
    facts = {"sha256": _checksum(content, counters), "counters": counters}
    write_atomically(folder / f"{stem}.json", json.dumps(facts, indent=2) + "\n")
    paths = checkpoint_paths(folder)
    kept = [path for path in paths if path.stem <= stem][-KEPT:]  # a later one was refused when the run was resumed
    for path in paths:
        if path not in kept:
            path.unlink(missing_ok=True)  # the JSON first: without it the tensors are no checkpoint
            path.with_suffix(".safetensors").unlink(missing_ok=True)


def _checksum(tensors: bytes, counters: dict[str, Any]) -> str:
    digest = hashlib.sha256(tensors)
    digest.update(json.dumps(counters, sort_keys=True).encode())
    return digest.hexdigest()


def checkpoint_paths(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*.json") if re.fullmatch(r"step-\d+", path.stem))


def load_newest_checkpoint(folder: Path, state: TrainingState) -> list[str]:
    """Set `state` to the newest checkpoint that is whole; gives a sentence for each one refused, by name.

    Without any checkpoint the state stays as it is, which is step 0. Raises CheckpointError if there are checkpoints
    and none is whole.
    """
    refused: list[str] = []
    paths = checkpoint_paths(folder)
    known = {path.stem for path in paths}
    orphans = [path for path in folder.glob("step-*.safetensors") if path.stem not in known]
    for leftover in (*orphans, *folder.glob(".*.tmp"), *folder.parent.glob(".*.tmp")):  # of a killed process
        if leftover.is_file():
            leftover.unlink()
    for path in reversed(paths):
        try:
            tensors, counters = _read_checkpoint(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        state.load_tensors(tensors)
        state.counters = counters
        return refused
    if paths:
        raise CheckpointError(f"No checkpoint in {folder} is whole: {'; '.join(refused)}")
    return refused


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Counters]:
    tensors_path = path.with_suffix(".safetensors")
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content = tensors_path.read_bytes()
        expected, counters = facts["sha256"], facts["counters"]
        known = {field.name for field in fields(Counters)}
        if set(counters) != known:
            raise CheckpointError(f"{path} was written by another version of Vitrail")
    except OSError as error:
        raise CheckpointError(f"{error.filename} could not be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is torn or corrupt") from error
    if _checksum(content, counters) != expected:
        raise CheckpointError(f"{tensors_path} is torn or corrupt: its checksum is not that in {path.name}")
    return load_tensors(content), Counters(**counters)
