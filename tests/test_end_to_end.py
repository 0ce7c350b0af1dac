"""The command line as a user has it: processes, terminals, signals, full disks, and what the README says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from vitrail.cli import main; main()"]
WARNINGS = {"PYTHONWARNINGS": "error"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, terminals and limits are those of POSIX")


def vitrail(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, encoding="utf-8", **options)  # pyright: ignore


def only_json(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


# Quick


def code_blocks() -> list[tuple[str, str]]:
    """The README's Python and text blocks, in order: ("python", code) or ("text", what the block before it prints)."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```(python|text)\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)


def test_the_readme_shows_what_its_python_prints():
    kinds = [kind for kind, _ in code_blocks()]
    if "python" not in kinds:
        pytest.skip("README.md has no Python block yet")
    assert kinds[0] == "python"
    for kind, code in code_blocks():
        if kind == "python":
            compile(code, "README.md", "exec")


# Slow


@pytest.mark.slow
def test_the_readme_runs(tmp_path, monkeypatch):
    blocks = code_blocks()
    if not blocks:
        pytest.skip("README.md has no Python block yet")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert printed.splitlines() == text.splitlines()
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(text, "README.md", "exec"), names)
        printed = output.getvalue()


@pytest.mark.slow
def test_a_bare_command_in_an_empty_folder(tmp_path):
    done = vitrail("train", cwd=tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, 5)
    assert not {"\x1b", "\r"} & {*done.stdout, *done.stderr}
    accuracy = re.match(r"test accuracy ([\d.]+) % \(95 % interval [\d.]+ to [\d.]+\), 359 images\n", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 97
    *_, where, report = done.stdout.splitlines()
    assert where == "model, figures and predictions are in runs/digits-digits-1"
    assert report == "all about it, to open in a browser: runs/digits-digits-1/report.html"
    assert done.stderr.startswith("digits: 1,259 images to train on, 179 to choose the best epoch by\n")
    assert re.search(r"\n[\d,]+ steps in \d+ epochs, expected to end in about \d+ ", done.stderr)
    assert all(line.startswith("epoch ") for line in done.stderr.splitlines()[2:])
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    gate = vitrail("evaluate", "last", "--require", "accuracy=0.97", "--json", cwd=tmp_path)
    assert (gate.returncode, only_json(gate)["run"]) == (0, "runs/digits-digits-1")


@pytest.mark.slow
def test_mnist_in_one_epoch(tmp_path, data_folder):
    data_folder("mnist")
    result = only_json(vitrail("train", "mnist", "--epochs", "1", "--json", cwd=tmp_path))
    assert (result["dataset"], result["recipe"], result["stopped"]) == ("mnist", "mnist", "done")
    assert result["test"]["images"] == 10_000
    assert result["test"]["accuracy"] > 0.95
    assert result["validation"]["images"] == 3_000


@pytest.mark.slow
def test_mnist_as_parquet_is_the_same(tmp_path, data_folder):
    settings = ["--set=training.batch_size=4096", "--set=model.depth=1", "--set=model.embed_dim=16"]
    results = []
    for name in ("mnist", "mnist-parquet"):
        root = tmp_path / f"data of {name}"
        root.mkdir()
        (root / "mnist").symlink_to(data_folder(name))  # a path's splits may grow, those of a named set are exact
        env = os.environ | {"VITRAIL_DATA": str(root)}
        done = vitrail("train", "mnist", "--epochs=1", *settings, f"--out={name}", "--json", cwd=tmp_path, env=env)
        results.append(only_json(done))
    assert results[0]["test"] == results[1]["test"]
    assert weights(tmp_path / "mnist") == weights(tmp_path / "mnist-parquet")


@pytest.mark.slow
def test_no_warning_on_the_way(tmp_path, write_idx):
    write_idx(tmp_path / "photos")
    done = vitrail("train", "photos", "--epochs=1", "--out=run", "--json", cwd=tmp_path, env=os.environ | WARNINGS)
    assert done.returncode == 0
    assert "Warning" not in done.stderr
    assert {"test", "validation"} <= {*only_json(done)}


# Signals

LONG = ["train", "digits", "--epochs=500", "--set=model.embed_dim=16", "--set=model.depth=1", "--out=run"]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_that_can_go_on(tmp_path, number):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    process = subprocess.Popen([*COMMAND, *LONG, "--json"], cwd=tmp_path, **pipes)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    *_, last = err.splitlines()
    assert re.fullmatch(
        rf"Stopped by {number.name} after step \d+ of 9500, all saved; "
        "continue with: vitrail train --resume --out run",
        last,
    )
    assert json.loads(out) == {"error": last, "exit_code": 128 + number}
    assert (tmp_path / "run" / "figures" / "samples.png").is_file()


@posix
@pytest.mark.slow
def test_a_signal_before_training_is_one_line_too(tmp_path):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        begun = 'import sys; from vitrail.cli import main; sys.stderr.write("ready\\n"); sys.stderr.flush(); main()'
        process = subprocess.Popen([sys.executable, "-c", begun, *LONG, "--json"], cwd=tmp_path, **pipes)
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        time.sleep(0.3)  # somewhere within the import of torch
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (code, f"Stopped by {number.name}\n")
        assert json.loads(out) == {"error": f"Stopped by {number.name}", "exit_code": code}
    assert list(tmp_path.iterdir()) == []


# A full disk

LIMITED = """
import resource, sys
from vitrail.cli import run_command
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(run_command(sys.argv[2:]))
"""


@posix
@pytest.mark.slow
def test_a_disk_without_room_for_a_checkpoint_loses_nothing(tmp_path):
    short = ["train", "digits", "--epochs=4", "--json"]
    undisturbed = only_json(vitrail(*short, "--out=undisturbed", cwd=tmp_path))
    room = 2 * len(weights(tmp_path / "undisturbed"))  # for the model, not for the state of training
    limited = [sys.executable, "-c", LIMITED, str(room)]
    done = subprocess.run([*limited, *short, "--out=run"], cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    error = only_json(done)["error"]
    assert re.fullmatch(
        r"run/checkpoints/step-000000019\.safetensors could not be written: File too large; "
        "when that is mended, continue with: vitrail train --resume --out run",
        str(error),
    )
    assert done.stderr.splitlines()[-1] == f"error: {error}"
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith(".tmp")]
    resumed = only_json(vitrail("train", "--resume", "--out=run", "--json", cwd=tmp_path))
    assert resumed["test"] == undisturbed["test"]
    assert weights(tmp_path / "run") == weights(tmp_path / "undisturbed")


# A terminal


def on_a_terminal(arguments: Sequence[str], cwd: Path, columns: int = 100, **environment: str) -> tuple[int, str]:
    """The exit code of a command, and what it wrote to a terminal of that width as its stderr."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    return process.wait(), written.decode()


@posix
@pytest.mark.slow
def test_a_terminal_shows_a_line_that_redraws_itself(tmp_path):
    code, text = on_a_terminal(["train", "--epochs=12"], tmp_path, columns=80)
    assert code == 0
    assert "\x1b[2K" in text
    assert text.endswith("\x1b[1A\x1b[2K")  # the line is gone in the end
    plain = [line.rstrip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))]
    assert any(line.startswith("preparing") for line in plain)
    last = [line for line in plain if line.startswith("epoch 12/12")][-1]
    assert re.search(r"━+ \d+ s left  loss \d\.\d{4}  accuracy [\d.]+ %  [\d,]+ images/s$", last)
    assert max(map(len, plain)) <= 80


@posix
@pytest.mark.slow
def test_a_terminal_without_colour_gets_plain_lines(tmp_path):
    code, text = on_a_terminal(["train", "--epochs=2"], tmp_path, NO_COLOR="1")
    assert code == 0
    assert "\x1b" not in text
    lines = text.split("\r\n")  # the terminal's own ends of lines
    assert lines.pop() == ""
    assert "\r" not in "".join(lines)
    assert re.fullmatch(r"epoch 2/2  validation accuracy [\d.]+ % .* [\d,]+ images/s  0 s left", lines[-1])


# A pipe that carries ASCII only


@pytest.mark.slow
def test_names_that_a_pipe_cannot_carry(tmp_path, digits_run, digit_images):
    from PIL import Image

    Image.fromarray(digit_images[0]).save(tmp_path / "Größe.png")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = vitrail("predict", str(digits_run), "Größe.png", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith(r"Gr\xf6\xdfe.png  ")
    done = vitrail("predict", str(digits_run), "Größe.png", "--json", cwd=tmp_path, env=environment)
    assert only_json(done)["predictions"][0]["image"] == "Größe.png"
