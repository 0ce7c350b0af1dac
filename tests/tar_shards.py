"""Tar shards in WebDataset naming, written with the standard library."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from vitrail.data.shard_files import find_shard
from vitrail.data.shard_index import Columns, make_index

BLOCK = 512  # bytes of a header, of the end mark's half, and what files are padded to


def png(seed: int, size: tuple[int, int] = (12, 16), bright: int | None = None) -> bytes:
    """A photograph of noise, equal for equal seeds, with a bright bar in the row that `bright` says."""
    pixels = np.random.default_rng(seed).integers(0, 100, (*size, 3), dtype=np.uint8)
    if bright is not None:
        pixels[2 * bright : 2 * bright + 2] += 150
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes | str | None] | Iterable[tuple[str, bytes | str]]) -> Path:
    """A tar of these files, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            assert content is not None
            add(archive, name, content.encode() if isinstance(content, str) else content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """One more file."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def samples(count: int, classes: int = 3, first: int = 0) -> dict[str, bytes]:
    """The files of so many images and their numeric labels, a bright bar for each class."""
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        label = number % classes
        members[f"{number:05d}.png"] = png(number, (12, 12), bright=label)
        members[f"{number:05d}.cls"] = str(label).encode()
    return members


def write_index(path: Path) -> Path:
    """The index of a shard, beside it, as one who publishes shards may put it there."""
    shard = find_shard(str(path))
    with path.open("rb") as file:
        index = make_index(file, shard.size, path.name, Columns())
    beside = path.with_name(f"{path.name}.index.json")
    beside.write_text(index.to_json(shard.size, shard.version, Columns()), encoding="utf-8")
    return beside


def pack(folder: Path, path: Path) -> Path:
    """A shard of the images of class folders, in their order, with labels that are the folders' names."""
    members: list[tuple[str, bytes | str]] = []
    for image in sorted(folder.rglob("*.png")):
        name = image.relative_to(folder).with_suffix("").as_posix()
        label = {"label": image.parent.relative_to(folder).as_posix()}
        members += [(f"{name}.png", image.read_bytes()), (f"{name}.json", json.dumps(label))]
    return write_shard(path, members)
