"""Whether torch.compile pays, found out before a run depends on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

# What compiling costs and the least part of a step that it is taken to save, by device. benchmarks/compilation.py
# measures both. On CPUs the compiled step has not been faster for the models measured, so auto leaves it out there.
COMPILE_SECONDS = {"cpu": 60.0, "cuda": 60.0}
LEAST_SAVING = {"cpu": 0.0, "cuda": 0.1}
TIMED_STEPS = 5


def has_compiler(device: torch.device) -> bool:
    """Whether the tools that torch.compile needs for `device` are installed: a C++ compiler, on CUDA Triton too."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++", "cl")), None)
    if compiler is None or shutil.which(compiler) is None:
        return False
    return device.type == "cpu" or importlib.util.find_spec("triton") is not None


def compiling_pays(device: torch.device, seconds_left: float) -> bool:
    """Whether a run with that much left is expected to be at least twice repaid for compiling."""
    saving = LEAST_SAVING.get(device.type, 0.0) * seconds_left
    return saving > 2 * COMPILE_SECONDS.get(device.type, 0.0) and has_compiler(device)


def compile_model(model: nn.Module) -> nn.Module:
    """The compiled form of a model, sharing its weights; compiling happens in its first forward and backward pass."""
    return cast(nn.Module, torch.compile(model))


def compile_where_it_pays(
    model: nn.Module,
    some_images: Callable[[], Tensor],
    autocast: bool,
    *,
    is_asked: bool,
    seconds_left: float,
    say: Callable[[str], None],
) -> nn.Module | None:
    """The compiled form of a model, where it is asked for or pays in what is left of a run, and is faster; else None.

    `some_images` gives those of a micro-batch, to find out. `say` hears a sentence on what takes long or is left out.
    """
    device = next(model.parameters()).device
    if is_asked and not has_compiler(device):
        say("torch.compile is left out: there is no C++ compiler")
        return None
    if not is_asked and not compiling_pays(device, seconds_left):
        return None
    say("compiling the model, which takes about a minute")
    compiled = compile_if_faster(model, some_images(), autocast)
    if compiled is None:
        say("torch.compile is left out: the compiled model is not faster")
    return compiled


def compile_if_faster(model: nn.Module, images: Tensor, autocast: bool) -> nn.Module | None:
    """The compiled form of a model if a forward and backward pass on `images` is faster with it, else None.

    Gradients are cleared afterwards; weights stay as they are, and so do buffers, such as batch norm's statistics.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    compiled = compile_model(model)
    _time_pass(compiled, images, autocast)  # compiles
    times = {
        candidate: min(_time_pass(candidate, images, autocast) for _ in range(TIMED_STEPS))
        for candidate in (model, compiled)
    }
    model.zero_grad()
    for buffer, before in buffers:
        buffer.copy_(before)
    return compiled if times[compiled] < times[model] else None


def _time_pass(model: nn.Module, images: Tensor, autocast: bool) -> float:
    started = time.perf_counter()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
        logits: Tensor = model(images)
    logits.float().square().mean().backward()
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - started
