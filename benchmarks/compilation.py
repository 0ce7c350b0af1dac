"""A training step with and without torch.compile, and what compiling takes; from a cold compiler cache."""

from __future__ import annotations

import os
import statistics
import tempfile
import time

import torch
from table import print_machine, print_markdown
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.models import build_model, model_config

MODELS = ("s5_vit", "vit_micro_conv8_28", "vit_tiny_patch16_224")
ROUNDS = 15


def step_seconds(compute: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    started = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(compute(images), labels).backward()
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    rows = []
    for name in MODELS:
        config = model_config(name)
        batch_size = 64 if config.image_size[0] < 64 else 8
        model = build_model(config)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        images = torch.randint(0, 256, (batch_size, config.in_chans, *config.image_size), dtype=torch.uint8)
        arguments = (optimizer, images, torch.randint(0, 10, (batch_size,)))
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            compiled = torch.compile(model)
            compile_seconds = step_seconds(compiled, *arguments)
            for warm in (model, compiled):
                step_seconds(warm, *arguments)
            times = [[step_seconds(compute, *arguments) for compute in (model, compiled)] for _ in range(ROUNDS)]
        eager, fast = (1000 * statistics.median(column) for column in zip(*times, strict=True))
        saved = 100 * (eager - fast) / eager
        rows.append((name, f"{eager:.1f}", f"{fast:.1f}", f"{saved:.0f}", f"{compile_seconds:.0f}"))
    print_machine()
    print_markdown(("model", "eager step, ms", "compiled step, ms", "saved, %", "compiling, s"), rows)


if __name__ == "__main__":
    main()
