"""How soon training starts on a folder of photographs, and how exactly `--time` ends. Needs VITRAIL_DATA/clothing.

Aims: the first optimizer step on 3,068 photographs (341 more for validation, 372 for the test) under 25 s after the
command began the first time, under 3 s later; `--time 3m` ends between 2:45 and 3:09.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from command import run_vitrail
from table import print_machine, print_markdown, spread

REPEATS = 3


def main() -> None:
    folder = str(Path(os.environ["VITRAIL_DATA"], "clothing"))
    first: list[float] = []
    later: list[float] = []
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["VITRAIL_CACHE"] = cache
            for seconds in (first, later):
                result, _ = run_vitrail("train", folder, "--time", "20s")
                seconds.append(result["preparation_seconds"])
    rows = [("first step, nothing cached", spread(first)), ("first step, images cached", spread(later))]
    for budget in ("1m", "3m"):
        ended: list[float] = []
        for _ in range(repeats):
            started = time.perf_counter()
            run_vitrail("train", folder, "--time", budget)
            ended.append(time.perf_counter() - started)
        rows.append((f"--time {budget}, the process's wall time", spread(ended)))
    print_machine()
    print_markdown(("what", "seconds"), rows)


if __name__ == "__main__":
    main()
