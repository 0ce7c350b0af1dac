"""Our ViT beside timm's, torchvision's, transformers' and vit-pytorch's: forward pass and training step, in one run.

Three models: ViT-Ti/16 at 224, a ViT for CIFAR (32 pixels, patches of 4), and the published model for MNIST that
Vitrail calls s5_vit. timm's random weights go into ours, torchvision's and transformers' models, and all four must give
the same logits before anything is timed. vit-pytorch's ViT cannot be made the same: it normalises patches before and
after their projection and has no biases in query, key and value; its SimpleViT has no class token either, but fused
attention. Both have the same sizes, so they are timed, not compared.

Rounds are interleaved: in each, every model computes the same batch in turn. The forward pass is in inference mode;
the training step is forward, cross-entropy, backward and one step of fused AdamW. The part of the peak is the model's
operations a second, as counted, three times as many in training, beside those of a large float32 matrix product in the
same run; what ours spares in its last block is counted for none. Aim: in each of the six cells 1.2 times the fastest of
the others with the same logits.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
import transformers
import vit_pytorch
from table import print_machine, print_markdown, spread
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torch.nn import functional as F
from vit_pytorch.simple_flash_attn_vit import SimpleViT

from vitrail.models import build_model, count_operations
from vitrail.models.vit_config import ViTConfig

SAME_LOGITS = ("vitrail", "timm", "torchvision", "transformers")


class Case(NamedTuple):
    label: str
    size: int
    patch: int
    channels: int
    dim: int
    depth: int
    heads: int
    classes: int
    batch: int


CASES = (
    Case("ViT-Ti/16, 224x224", 224, 16, 3, 192, 12, 3, 1000, 16),
    Case("CIFAR ViT, 32x32", 32, 4, 3, 192, 9, 3, 10, 64),
    Case("s5_vit, 28x28", 28, 7, 1, 100, 3, 2, 10, 64),
)


def config_of(case: Case) -> ViTConfig:
    """Ours: images as the others take them, so neither mean nor deviation."""
    return ViTConfig(
        image_size=(case.size, case.size),
        patch_size=(case.patch, case.patch),
        in_chans=case.channels,
        num_classes=case.classes,
        embed_dim=case.dim,
        depth=case.depth,
        num_heads=case.heads,
        mean=(0.0,) * case.channels,
        std=(1.0,) * case.channels,
    )


def timm_model(case: Case) -> nn.Module:
    return TimmViT(
        img_size=case.size,
        patch_size=case.patch,
        in_chans=case.channels,
        num_classes=case.classes,
        embed_dim=case.dim,
        depth=case.depth,
        num_heads=case.heads,
    )


def torchvision_model(case: Case) -> nn.Module:
    """It takes three channels only, so its first layer is replaced where there are others."""
    model = torchvision.models.VisionTransformer(
        image_size=case.size,
        patch_size=case.patch,
        num_layers=case.depth,
        num_heads=case.heads,
        hidden_dim=case.dim,
        mlp_dim=4 * case.dim,
        num_classes=case.classes,
    )
    model.conv_proj = nn.Conv2d(case.channels, case.dim, case.patch, case.patch)
    return model


class Logits(nn.Module):
    """A transformers model that gives a tensor, as the others do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def transformers_model(case: Case) -> nn.Module:
    config = transformers.ViTConfig(
        image_size=case.size,
        patch_size=case.patch,
        num_channels=case.channels,
        hidden_size=case.dim,
        num_hidden_layers=case.depth,
        num_attention_heads=case.heads,
        intermediate_size=4 * case.dim,
        num_labels=case.classes,
        layer_norm_eps=1e-6,
        attn_implementation="sdpa",
    )
    return Logits(transformers.ViTForImageClassification(config))


def vit_pytorch_model(case: Case, kind: Callable[..., nn.Module]) -> nn.Module:
    return kind(
        image_size=case.size,
        patch_size=case.patch,
        channels=case.channels,
        num_classes=case.classes,
        dim=case.dim,
        depth=case.depth,
        heads=case.heads,
        dim_head=case.dim // case.heads,
        mlp_dim=4 * case.dim,
    )


TORCHVISION_NAMES = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj": "conv_proj",
    "norm1": "ln_1",
    "attn.qkv.weight": "self_attention.in_proj_weight",
    "attn.qkv.bias": "self_attention.in_proj_bias",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "blocks.": "encoder.layers.encoder_layer_",
}
TRANSFORMERS_NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "blocks.": "layers.",
}


def renamed(weights: dict[str, Tensor], names: dict[str, str], front: str, norm: str, head: str) -> dict[str, Tensor]:
    """timm's weights under another library's names."""
    result: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.startswith(("norm.", "head.")):
            new = name.replace("norm.", norm).replace("head.", head)
        else:
            new = name
            for old, other in names.items():
                new = new.replace(old, other)
            new = front + new
        result[new] = weight
    return result


def transformers_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's weights for transformers, where query, key and value are layers of their own."""
    apart: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if ".qkv." in name:
            for layer, part in zip(("q_proj", "k_proj", "v_proj"), weight.chunk(3), strict=True):
                apart[name.replace("attn.qkv", f"attention.{layer}")] = part
        else:
            apart[name] = weight
    return renamed(apart, TRANSFORMERS_NAMES, "model.vit.", "model.vit.layernorm.", "model.classifier.")


def build_all(case: Case) -> dict[str, nn.Module]:
    """All libraries' models; those that can be have the same weights."""
    torch.manual_seed(0)
    reference = timm_model(case)
    for name, parameter in reference.named_parameters():  # at the start biases are zero, and would hide a wrong map
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    weights = reference.state_dict()
    models = {
        "vitrail": build_model(config_of(case)),
        "timm": reference,
        "torchvision": torchvision_model(case),
        "transformers": transformers_model(case),
        "vit-pytorch ViT": vit_pytorch_model(case, vit_pytorch.ViT),
        "vit-pytorch SimpleViT": vit_pytorch_model(case, SimpleViT),
    }
    models["vitrail"].load_state_dict(weights)
    models["torchvision"].load_state_dict(renamed(weights, TORCHVISION_NAMES, "", "encoder.ln.", "heads.head."))
    models["transformers"].load_state_dict(transformers_weights(weights))
    return models


def assert_same_logits(models: dict[str, nn.Module], images: Tensor) -> float:
    """The largest difference of a logit from timm's; an error above 1e-4."""
    with torch.inference_mode():
        logits = {name: model.eval()(images) for name, model in models.items() if name in SAME_LOGITS}
    assert logits["timm"].std() > 0.1
    largest = max((each - logits["timm"]).abs().max().item() for each in logits.values())
    assert largest <= 1e-4, f"logits differ by {largest:g}"
    return largest


class Bench:
    """Times the models of one case."""

    def __init__(self, case: Case, options: argparse.Namespace) -> None:
        self.device, self.rounds = torch.device(options.device), options.rounds
        self.autocast: Callable[[], Any] = contextlib.nullcontext
        if options.bfloat16:
            self.autocast = lambda: torch.autocast(self.device.type, torch.bfloat16)
        batch = options.batch or case.batch
        self.models = {name: model.to(self.device) for name, model in build_all(case).items()}
        images = torch.randn(batch, case.channels, case.size, case.size, generator=torch.Generator().manual_seed(1))
        self.images = images.to(self.device)
        self.labels = torch.arange(batch, device=self.device) % case.classes
        self.difference = assert_same_logits(self.models, self.images)
        self.optimizers = {
            name: torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True) for name, model in self.models.items()
        }
        self.computed = {
            name: torch.compile(model) if options.compile else model for name, model in self.models.items()
        }

    def forward(self, name: str) -> None:
        with torch.inference_mode(), self.autocast():
            self.computed[name](self.images)

    def step(self, name: str) -> None:
        with self.autocast():
            loss = F.cross_entropy(self.computed[name](self.images), self.labels)
        loss.backward()
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()

    def seconds(self, run: Callable[[str], None], name: str) -> float:
        self.wait()
        started = time.perf_counter()
        run(name)
        self.wait()
        return time.perf_counter() - started

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rounds_of(self, run: Callable[[str], None], training: bool) -> dict[str, list[float]]:
        """Seconds of a pass of each model in each round, the median of as many as take a third of a second."""
        repeats: dict[str, int] = {}
        for name, model in self.models.items():
            model.train(training)
            run(name)
            run(name)
            repeats[name] = max(1, min(20, round(0.3 / self.seconds(run, name))))
        times: dict[str, list[float]] = {name: [] for name in self.models}
        names = list(self.models)
        for index in range(self.rounds):
            first = index % len(names)  # each round begins with another, so that none always follows the same one
            for name in names[first:] + names[:first]:
                run(name)  # its weights and memory come back after another model's
                times[name].append(statistics.median(self.seconds(run, name) for _ in range(repeats[name])))
        return times


def peak_operations(device: torch.device) -> float:
    """Operations a second of a product of large float32 matrices, the best of ten."""
    size = 4096 if device.type == "cuda" else 2048
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        torch.mm(left, right)[0, 0].item()  # item waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def rows_of(case: Case, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Table rows of one case: each library's forward pass, then its training step."""
    bench = Bench(case, options)
    print(f"{case.label}: logits differ by {bench.difference:.1g} at most", file=sys.stderr, flush=True)
    rows: list[tuple[str, ...]] = []
    for training in (False, True):
        peak = peak_operations(bench.device)
        operations = 2 * count_operations(config_of(case)) * (3 if training else 1)
        times = bench.rounds_of(bench.step if training else bench.forward, training)
        others = [statistics.median(seconds) for name, seconds in times.items() if name in SAME_LOGITS[1:]]
        for name, seconds in times.items():
            speeds = [len(bench.images) / each for each in seconds]
            part = statistics.median(speeds) * operations / peak
            ratio = min(others) / statistics.median(seconds)
            what = "training step" if training else "forward"
            rows.append((case.label, what, name, spread(speeds), f"{100 * part:.0f}", f"{ratio:.2f}"))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def keep_memory() -> None:
    """Tell glibc to keep what is freed: each page that a step asks for anew costs a visit to the kernel."""
    libc = ctypes.CDLL("libc.so.6")
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="threads of torch; without it as many as it takes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="images at a time; without it 16 of 224 pixels, else 64")
    parser.add_argument("--compile", action="store_true", help="every model through torch.compile")
    parser.add_argument("--bfloat16", action="store_true", help="autocast; the peak stays that of float32")
    parser.add_argument("--keep-memory", action="store_true", help="no page faults, for all libraries alike (glibc)")
    parser.add_argument("--quick", action="store_true", help="two rounds, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results") / "models.md")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.quick:
        options.rounds = 2
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.keep_memory:
        keep_memory()
    warnings.simplefilter("ignore")  # of the other libraries, about names they will drop
    peak = peak_operations(torch.device(options.device))
    rows = [row for case in CASES for row in rows_of(case, options)]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print_machine()
        flags = [name for name in ("compile", "bfloat16", "keep_memory") if getattr(options, name)]
        print(f"Device {options.device}, {options.rounds} rounds, {', '.join(flags) or 'eager float32'};", end=" ")
        print(f"float32 matrix product {peak / 1e9:.0f} GFLOP/s at the start;", end=" ")
        print(
            ", ".join(f"{module.__name__} {module.__version__}" for module in (timm, torchvision, transformers))
            + f", vit_pytorch {version('vit-pytorch')}\n"
        )
        headings = (
            "model",
            "what",
            "library",
            "images/s",
            "part of the peak, %",
            "speed, times the fastest of the others",
        )
        print_markdown(headings, rows)
    print(text.getvalue())
    options.output.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
