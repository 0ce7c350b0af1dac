"""How far a command is: plain lines here; a bar, when stderr is a terminal."""

import io
import sys

import pytest

from vitrail.cli import counting
from vitrail.cli.counting import shown_count


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` moves the clock that decides what is shown."""
    now = [1000.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_a_line_every_few_seconds(clock, capsys):
    with shown_count() as report:
        clock(60)  # the model is loaded
        report(0, 4000)
        report(256, 4000)
        clock(4)
        report(512, 4000)
        clock(4)
        report(1000, 4000)
        clock(1)
        report(1256, 4000)
        clock(10)
        report(4000, 4000)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "1,000 of 4,000 images, 24 s left\n")


def test_short_work_says_nothing(clock, capsys):
    with shown_count() as report:
        for done in range(1, 101):
            report(done, 100)
    assert capsys.readouterr() == ("", "")


def test_another_pass_begins_anew(clock, capsys):
    with shown_count() as report:
        for done in (10, 20):
            report(done, 20)
            clock(100)
        report(1, 20)
        clock(6)
        report(4, 20)
    assert capsys.readouterr().err == "4 of 20 images, 24 s left\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_bar_where_it_is_not_wanted(monkeypatch, plain):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in plain.items():
        monkeypatch.setenv(name, value)
    with shown_count() as report:
        report(1, 2)
    assert terminal.getvalue() == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with shown_count() as report:
        report(250, 1000)
        report(1000, 1000)
        report(5, 1000)
    drawn = terminal.getvalue()
    assert "5/1000" in drawn
    assert "images" in drawn
    assert capsys.readouterr().out == ""
