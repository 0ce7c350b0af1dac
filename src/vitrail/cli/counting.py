"""How far a command is with its images, or with other things: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from vitrail.cli.forecast import duration
from vitrail.cli.output import may_redraw, say

LINE_SECONDS = 5.0  # between plain lines, and before the first: short work says nothing


@contextmanager
def shown_count(what: str = "images") -> Generator[Callable[[int, int], None]]:
    """A report function, which hears how many of how many are done; it may begin again for another pass."""
    if may_redraw():
        with _bar(what) as report:
            yield report
    else:
        yield _Lines(what)


@contextmanager
def _bar(what: str) -> Generator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task(what, total=None)
        last = 0

        def report(done: int, total: int) -> None:
            nonlocal last
            if done < last:
                bar.reset(task)
            last = done
            bar.update(task, completed=done, total=total)

        yield report


class _Lines:
    """Plain lines such as `1,200 of 9,000 images, 1 min 5 s left`."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.last = 0
        self.began = self.last_line = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < self.last or self.last == 0:  # the model is loaded before the first report
            self.began = self.last_line = now
        self.last = done
        if now - self.last_line < LINE_SECONDS or done >= total:
            return
        self.last_line = now
        left = duration((now - self.began) / done * (total - done))
        say(f"{done:,} of {total:,} {self.what}, {left} left")
