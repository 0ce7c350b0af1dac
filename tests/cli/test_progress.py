"""How a training is seen: plain lines here; the line that redraws itself is tried in tests/test_end_to_end.py."""

import math
import re

import pytest

from vitrail.cli import progress
from vitrail.cli.bar import describe
from vitrail.cli.forecast import Forecast, duration
from vitrail.cli.progress import shown_progress
from vitrail.training.loop import Progress


def at(step: int, *, left: float = 30.0, evaluation: dict[str, float] | None = None, message: str | None = None):
    """A training of 40 steps in 4 epochs at that step."""
    epoch = step // 10 if evaluation else step // 10 + 1
    return Progress(step, 40, epoch, 4, 0.5, 0.75, 1234.5, left, evaluation, message)


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` moves the clock that decides what is shown."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (59.1, "1 min 0 s"),
        (42, "42 s"),
        (200, "3 min 20 s"),
        (3599.5, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_end_is_foretold_once_as_soon_as_the_speed_is_known():
    speed = Forecast()
    assert speed.sentence(at(0, left=math.nan)) is None
    sentence = speed.sentence(at(0, left=90))
    assert sentence is not None
    assert sentence.startswith("40 steps in 4 epochs, expected to end in about 1 min 30 s, at ")
    assert speed.sentence(at(4)) is None


def test_nothing_is_foretold_of_what_has_ended():
    assert Forecast().sentence(at(40, left=0.0)) is None


def test_plain_lines_every_other_second_and_the_last(clock, capsys):
    evaluation = {"accuracy": 0.5, "loss": 1.25}
    with shown_progress() as report:
        report(at(5))
        report(at(10, evaluation=evaluation))
        clock(2.5)
        report(at(15))
        report(at(20, left=15.5, evaluation=evaluation))
        report(at(30, evaluation=evaluation))
        report(at(35, message="compiling the model"))
        report(at(40, left=0.0, evaluation={"accuracy": 0.99999, "loss": 0.001}))
    captured = capsys.readouterr()
    assert captured.out == ""
    first, *others = captured.err.splitlines()
    assert first.startswith("40 steps in 4 epochs, expected to end in about 30 s, at ")
    assert others == [
        "epoch 2/4  validation accuracy 50.00 % loss 1.2500  training loss 0.5000 accuracy 75.0 %  "
        "1,234 images/s  16 s left",
        "compiling the model",
        "epoch 4/4  validation accuracy 99.99 % loss 0.0010  training loss 0.5000 accuracy 75.0 %  "
        "1,234 images/s  0 s left",
    ]


@pytest.mark.parametrize(
    ("room", "text"),
    [
        (80, "30 s left  loss 0.5000  accuracy 75.0 %  1,234 images/s  validation 87.5 %"),
        (73, "30 s left  loss 0.5000  accuracy 75.0 %  1,234 images/s"),
        (40, "30 s left  loss 0.5000  accuracy 75.0 %"),
        (5, "30 s left"),
    ],
)
def test_a_line_leaves_out_what_does_not_fit(room, text):
    assert describe(at(5), 0.875, room) == text


def test_a_line_leaves_out_what_is_not_known():
    early = Progress(0, 40, 1, 4, 2.3, None, 0.0, math.inf)
    assert describe(early, None, 80) == "loss 2.3000  0 images/s"


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_plain_lines_gets_them(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", Terminal())
    with shown_progress() as report:
        report(at(40, left=0.0, evaluation={"accuracy": 0.5, "loss": 1.25}))
        import sys

        shown = sys.stderr.text
    assert shown.startswith("epoch 4/4  validation accuracy 50.00 % loss 1.2500  ")
    assert shown.endswith("1,234 images/s  0 s left\n")
    assert not {"\r", "\x1b"} & {*shown}


def test_a_terminal_gets_one_line_that_redraws_itself(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr("sys.stderr", terminal)
    with shown_progress() as report:
        assert "preparing" in terminal.text
        report(at(20, left=15.0, message="compiling the model", evaluation={"accuracy": 0.5, "loss": 1.25}))
    assert "\x1b[2K" in terminal.text  # a line is wiped
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text)
    assert "compiling the model\n" in plain
    assert "15 s left  loss 0.5000  accuracy 75.0 %  1,234 images/s  validation 50.0 %" in plain
    assert "epoch 2/4" in plain
    assert max(map(len, re.split(r"[\r\n]", plain))) <= 110
