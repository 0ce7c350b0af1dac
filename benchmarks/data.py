"""Images per second into batches at 224x224, beside torchvision, timm and datasets; and how soon sets are ready.

All draw a random resized crop (area 0.35 to 1) and mirror half of the images, in batches of 64. Peers get the best of
several numbers of worker processes; they give float batches that are normalised, Vitrail uint8 ones, as its models
normalise. Photographs are the training split of clothing/, as they are (shorter side 256), with four and sixteen times
as many pixels, and at the size that Vitrail's cache has (280). The first epoch of Vitrail begins with an empty cache
and includes all that decoding takes; later epochs are medians of two. Of enlarged photographs 640 are used.
`--check` instead trains one model on photographs as Vitrail and as torchvision serves them, and compares validation
accuracies. Needs VITRAIL_DATA to hold clothing/, mnist/, mnist-parquet/ and cifar10/.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from table import print_machine, print_markdown, spread
from torch import Tensor
from torch.nn import functional as F

from vitrail.data.augment import AugmentConfig, augment_batch, seed_of
from vitrail.data.loader import Loader, create_loader, epoch_order
from vitrail.data.preprocess import Fit, Preprocess
from vitrail.data.sources import open_dataset
from vitrail.models import create_model

SIZE, CANVAS, BATCH = 224, 280, 64
SCALE = (0.35, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = (0, 2, 3)
LATER = 2  # further epochs of each
NUM_LARGE = 640  # of the photographs, where they are enlarged
CPU = torch.device("cpu")

Feed = Callable[[], Iterator[tuple[Tensor, Tensor]]]  # one epoch of batches


def main() -> None:
    if "--check" in sys.argv:
        check_accuracy()
        return
    clothing = Path(os.environ["VITRAIL_DATA"], "clothing", "train")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VITRAIL_CACHE"] = str(Path(scratch, "cache"))
        sets = {
            "as they are (256)": clothing,
            "4 times the pixels (512)": _resized(clothing, Path(scratch, "double"), lambda side: 2 * side, NUM_LARGE),
            "16 times the pixels (1024)": _resized(
                clothing, Path(scratch, "fourfold"), lambda side: 4 * side, NUM_LARGE
            ),
            "at the cache's size (280)": _resized(clothing, Path(scratch, "cached"), lambda side: CANVAS),
        }
        rows = [row for name, folder in sets.items() for row in _loading_rows(name, folder)]
        print_machine()
        print_markdown(("photographs, shorter side", "loader", "images per second, first epoch", "later epochs"), rows)
        print()
        print_markdown(("set", "first, s", "later, s"), _ready_rows())


def _resized(folder: Path, target: Path, side_of: Callable[[int], int], most: int = 10**6) -> Path:
    """Copies of the photographs, or of some of them, with another shorter side."""

    def resize(path: Path) -> None:
        with Image.open(path) as image:
            rate = side_of(min(image.size)) / min(image.size)
            size = (round(image.width * rate), round(image.height * rate))
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            image.resize(size, Image.Resampling.LANCZOS).save(copy, quality=85)

    with ThreadPoolExecutor() as pool:
        paths = sorted(folder.rglob("*.jpg"))
        list(pool.map(resize, paths[:: max(1, len(paths) // most)]))
    return target


def _loading_rows(name: str, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    started = time.perf_counter()
    feed = vitrail_feed(folder, SIZE)
    _run(feed)
    count = sum(1 for _ in folder.rglob("*.jpg"))
    first = count / (time.perf_counter() - started)
    later = [_run(feed) for _ in range(LATER)]
    yield name, "vitrail", f"{first:.0f}", spread(later, 0)
    for peer, make in PEERS.items():
        speeds = {workers: _run(make(folder, workers, SIZE)) for workers in WORKERS}
        best = max(speeds, key=lambda workers: speeds[workers])
        again = [_run(make(folder, best, SIZE)) for _ in range(LATER)]
        yield name, f"{peer}, {best} workers", f"{speeds[best]:.0f}", spread(again, 0)


def _run(feed: Feed) -> float:
    """Images per second of one epoch."""
    started, count = time.perf_counter(), 0
    for images, _ in feed():
        count += len(images)
    return count / (time.perf_counter() - started)


def vitrail_feed(folder: Path, size: int, fit: Fit = "pad") -> Feed:
    """Decode where the cache has nothing yet; then epochs of batches."""
    side = round(1.25 * size)
    dataset = open_dataset(folder)
    images = dataset.prepared("all", Preprocess(image_size=(side, side), channels=3, fit=fit))
    loader: Loader = create_loader(images, BATCH, functools.partial(epoch_order, len(images), 0), CPU)
    config = AugmentConfig(crop_scale=SCALE, flip_rate=0.5)
    epochs = iter(range(10**6))

    def feed() -> Iterator[tuple[Tensor, Tensor]]:
        epoch = next(epochs)
        for index in range(loader.num_batches):
            batch, labels = loader.batch(epoch, index)
            generator = torch.Generator().manual_seed(seed_of(0, epoch, index))
            yield augment_batch(batch, labels, len(dataset.classes), config, generator, image_size=(size, size))

    return feed


def torchvision_feed(folder: Path, num_workers: int, size: int) -> Feed:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    images = ImageFolder(folder, _transform(size))
    return lambda: iter(DataLoader(images, BATCH, shuffle=True, num_workers=num_workers, drop_last=True))


def timm_feed(folder: Path, num_workers: int, size: int) -> Feed:
    from timm.data import create_dataset
    from timm.data import create_loader as timm_loader

    images = create_dataset("", root=str(folder), split="train", is_training=True)
    loader = timm_loader(
        images,
        (3, size, size),
        BATCH,
        is_training=True,
        use_prefetcher=False,
        no_aug=False,
        scale=SCALE,
        hflip=0.5,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=num_workers,
        persistent_workers=False,
        device=CPU,
    )
    return lambda: iter(loader)


def datasets_feed(folder: Path, num_workers: int, size: int) -> Feed:
    from datasets import load_dataset
    from torch.utils.data import DataLoader

    transform = _transform(size)

    def apply(rows: dict[str, Any]) -> dict[str, Any]:
        return {"image": [transform(image.convert("RGB")) for image in rows["image"]], "label": rows["label"]}

    images = load_dataset("imagefolder", data_dir=str(folder), split="train").with_transform(apply)

    def feed() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in DataLoader(images, BATCH, shuffle=True, num_workers=num_workers, drop_last=True):
            yield batch["image"], batch["label"]

    return feed


def _transform(size: int) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(size, scale=SCALE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


PEERS = {"torchvision v2": torchvision_feed, "timm": timm_feed, "datasets": datasets_feed}


def _ready_rows() -> Iterator[tuple[str, str, str]]:
    """Seconds until both splits of a set lie there, with an empty cache and again."""
    for name in ("mnist", "mnist-parquet", "cifar10"):
        shutil.rmtree(os.environ["VITRAIL_CACHE"], ignore_errors=True)
        seconds: list[float] = []
        for _ in range(2):
            started = time.perf_counter()
            dataset = open_dataset(str(Path(os.environ["VITRAIL_DATA"], name)))
            for split in dataset.published:
                np.asarray(dataset.read(split).pixels[:]).max()
            seconds.append(time.perf_counter() - started)
        yield name, f"{seconds[0]:.1f}", f"{seconds[1]:.1f}"


def check_accuracy(size: int = 64, epochs: int = 8) -> None:
    """The same model on photographs as each loader serves them: validation accuracies."""
    folder = Path(os.environ["VITRAIL_DATA"], "clothing")
    preprocess = Preprocess(image_size=(size, size), channels=3, fit="crop")
    validation = open_dataset(folder).prepared("validation", preprocess)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VITRAIL_CACHE"] = scratch
        rows: list[tuple[str, str]] = []
        for name in ("vitrail", "torchvision v2"):
            found = [_accuracy(name, folder / "train", size, epochs, seed, validation) for seed in (0,)]
            rows.append((name, ", ".join(f"{100 * accuracy:.1f}" for accuracy in found)))
    print_machine()
    print_markdown(("loader", f"validation accuracy, %, after {epochs} epochs, seed 0"), rows)


def _accuracy(name: str, folder: Path, size: int, epochs: int, seed: int, validation: Any) -> float:
    torch.manual_seed(seed)
    feed = vitrail_feed(folder, size, "crop") if name == "vitrail" else torchvision_feed(folder, 2, size)
    model = create_model("vit_micro_conv16_64", num_classes=10, in_chans=3, image_size=(size, size))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    num_steps = epochs * (3068 // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(epochs):
        model.train()
        for images, labels in feed():
            pixels = images if images.dtype == torch.uint8 or name == "vitrail" else (images * std + mean).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(pixels), labels).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        tensors = torch.from_numpy(np.ascontiguousarray(validation.pixels.transpose(0, 3, 1, 2)))
        answers = torch.cat([model(part).argmax(dim=1) for part in tensors.split(128)])
    return float((answers.numpy() == validation.labels).mean())


if __name__ == "__main__":
    main()
