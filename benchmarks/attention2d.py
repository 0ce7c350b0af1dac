"""Time and memory of one layer of self-attention on maps at pixel level, forward and backward, in float32.

A stem of one pixel, one block of width 64 with 4 heads, mean and head; each size in a process of its own, as a peak
never falls. Times are of processors. With attention dropout no fused kernel serves, and queries come in chunks. Aim:
at 224x224, which is 50,176 positions, under 1.5 GB more than the process takes with everything imported. Needs Linux.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

SIDES = (32, 64, 112, 224)
DROP_RATES = {"fused": 0.0, "chunks": 0.1}


def memory(kind: str) -> int:
    """Bytes of this process: VmRSS, now, or VmHWM, at most since it began."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def measure(side: int, attn_drop_rate: float) -> dict[str, float]:
    """Processor seconds, and bytes at most above those of the imported process, of one forward and backward pass."""
    import torch

    from vitrail.models.attention2d import Attention2dClassifier, Attention2dConfig

    imported = memory("VmRSS")
    torch.manual_seed(0)
    config = Attention2dConfig(
        image_size=(side, side), patch_size=(1, 1), depth=1, num_classes=10, attn_drop_rate=attn_drop_rate
    )
    model = Attention2dClassifier(config)
    started = time.process_time()
    model(torch.rand(1, 3, side, side)).sum().backward()
    return {"seconds": time.process_time() - started, "peak_bytes": memory("VmHWM") - imported}


def measure_apart(side: int, attn_drop_rate: float) -> dict[str, float]:
    """What `measure` gives in a new process."""
    command = [sys.executable, __file__, str(side), str(attn_drop_rate)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    from table import print_machine, print_markdown

    rows = []
    for side in SIDES:
        cells = [f"{side}x{side}", f"{side**2:,}"]
        for rate in DROP_RATES.values():
            measured = measure_apart(side, rate)
            cells += [f"{measured['seconds']:.2f}", f"{measured['peak_bytes'] / 1e6:,.0f}"]
        cells.append(f"{4 * 4 * side**4 / 1e6:,.0f}")
        rows.append(cells)
    print_machine()
    headings = [f"{name}, {unit}" for name in DROP_RATES for unit in ("s", "MB")]
    print_markdown(("pixels", "positions", *headings, "one copy of all scores, MB"), rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]))))
    else:
        main()
