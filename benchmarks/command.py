"""Runs `vitrail` as a user does, in a process of its own, and gives what it printed and the memory it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def run_vitrail(*arguments: str) -> tuple[dict[str, Any], int]:
    """The JSON object of one command and its process's peak memory in bytes; the run is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from vitrail.cli import main; main()", *arguments, "--json"]
        output = Path(folder, "stdout.json")
        with output.open("wb") as stdout:
            process = subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"vitrail {' '.join(arguments)} failed: {output.read_text()}")
        return json.loads(output.read_text()), usage.ru_maxrss * 1024
