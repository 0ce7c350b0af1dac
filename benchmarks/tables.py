"""A table of a million paths: how long it takes to open, and how much memory; the paths exist, as links to few images.

    python benchmarks/tables.py [ROWS]

Aim: under 60 s and 1 GB. Linux only. Each kind of table is opened in a process of its own; "listed" has what a training
asks of each image before it is decoded, such as when its file was changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import csv, parquet
from table import print_machine, print_markdown

KINDS = ("paths.parquet", "paths.csv", "paths.jsonl")
NUM_CLASSES = 100
PER_FOLDER = 1000  # a file can have some ten thousand names

CODE = """
import json, sys, time
from pathlib import Path
start = time.perf_counter()
from vitrail.data import tables
tables.records_dataset = lambda name, classes, splits, *rest, **more: splits  # the records, instead of their images
records = tables.open_tables({"all": [Path(sys.argv[1])]}, "paths")["all"]()
opened = time.perf_counter() - start
stamps = [records.stamp(index) for index in range(len(records))]
listed = time.perf_counter() - start
lines = Path("/proc/self/status").read_text().splitlines()  # what getrusage says has a parent's memory in it
memory = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
print(json.dumps([len(stamps), opened, listed, memory]))
"""


def main() -> None:
    num_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print_machine()
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        write_set(Path(name), num_rows)
        for kind in KINDS:
            done = subprocess.run(
                [sys.executable, "-c", CODE, str(Path(name, kind))], capture_output=True, text=True, check=True
            )
            count, opened, listed, memory = json.loads(done.stdout)
            assert count == num_rows
            rows.append((kind, f"{count:,}", f"{opened:.1f}", f"{listed:.1f}", f"{memory / 1e9:.2f}"))
    print_markdown(("table", "rows", "opened, s", "listed, s", "peak memory, GB"), rows)


def write_set(folder: Path, num_rows: int) -> None:
    """So many paths, a folder for each thousand, each a further name of one of a thousand images; and the tables."""
    numbers = np.random.default_rng(0)
    first = folder / "00000"
    paths: list[str] = []
    for start in range(0, num_rows, PER_FOLDER):
        own = folder / f"{start // PER_FOLDER:05d}"
        own.mkdir()
        for number in range(min(PER_FOLDER, num_rows - start)):
            if own == first:
                pixels = numbers.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(own / f"{number:05d}.png")
            else:
                os.link(first / f"{number:05d}.png", own / f"{number:05d}.png")
            paths.append(f"{own.name}/{number:05d}.png")
    labels = [f"class {place % NUM_CLASSES:02d}" for place in range(num_rows)]
    table = pa.table({"path": paths, "label": labels})
    parquet.write_table(table, folder / KINDS[0])
    csv.write_csv(table, folder / KINDS[1])
    with (folder / KINDS[2]).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())


if __name__ == "__main__":
    main()
