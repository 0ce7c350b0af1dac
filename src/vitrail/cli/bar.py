"""The progress of training as one line that redraws itself on a terminal."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from vitrail.cli.forecast import Forecast, duration
from vitrail.cli.output import percent
from vitrail.cli.progress import chosen_by

if TYPE_CHECKING:
    from vitrail.training.loop import Progress, Report

LEAST_BAR = 8  # columns


def describe(progress: Progress, validation: float | None, room: int) -> str:
    """Time left, loss, accuracy on training images, speed, accuracy on validation images: as many as fit in `room`."""
    parts: list[str] = []
    if math.isfinite(progress.seconds_left):
        parts.append(f"{duration(progress.seconds_left)} left")
    if math.isfinite(progress.loss):  # it is not when nothing has been done yet
        parts.append(f"loss {progress.loss:.4f}")
    if progress.accuracy is not None and math.isfinite(progress.accuracy):
        parts.append(f"accuracy {percent(progress.accuracy)} %")
    parts.append(f"{progress.images_per_second:,.0f} images/s")
    if validation is not None:
        parts.append(f"validation {percent(validation)} %")
    while len(parts) > 1 and len("  ".join(parts)) > room:
        parts.pop()
    return "  ".join(parts)


@contextmanager
def progress_bar() -> Generator[Report]:
    """A report function that draws epoch, time left, loss, accuracy and images a second on stderr."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.fields[epoch]}"), BarColumn(bar_width=None), TextColumn("{task.fields[numbers]}"))
    forecast = Forecast()
    with Bar(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("train", total=None, epoch="preparing", numbers="")
        validation: float | None = None

        def report(progress: Progress) -> None:
            nonlocal validation
            for sentence in (progress.message, forecast.sentence(progress)):
                if sentence:
                    console.print(sentence, highlight=False, markup=False)
            if progress.evaluation is not None:
                _, validation = chosen_by(progress.evaluation)
            epoch = f"epoch {progress.epoch}/{progress.num_epochs}"
            numbers = describe(progress, validation, console.width - len(epoch) - LEAST_BAR - 2)
            bar.update(task, completed=progress.step, total=progress.num_steps, epoch=epoch, numbers=numbers)

        yield report
