"""The progress of training as one line that redraws itself on a terminal."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vitrail.cli.forecast import Forecast
from vitrail.cli.output import percent

if TYPE_CHECKING:
    from vitrail.training.loop import Progress, Report


def describe(progress: Progress) -> str:
    """Loss, accuracy on training images and speed, in a line."""
    accuracy = "" if progress.accuracy is None else f"  accuracy {percent(progress.accuracy)} %"
    return f"loss {progress.loss:.4f}{accuracy}  {progress.images_per_second:,.0f} images/s"


@contextmanager
def progress_bar() -> Generator[Report]:
    """A report function that draws epoch, loss, accuracy, images a second and the time left on stderr."""
    console = Console(stderr=True)
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[numbers]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    forecast = Forecast()
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("train", total=None, epoch="", numbers="")
        evaluated = ""

        def report(progress: Progress) -> None:
            nonlocal evaluated
            for sentence in (progress.message, forecast.sentence(progress)):
                if sentence:
                    console.print(sentence, highlight=False, markup=False)
            if progress.evaluation is not None:
                evaluated = f"  validation {percent(progress.evaluation['accuracy'])} %"
            epoch = f"{progress.epoch}/{progress.num_epochs}"
            numbers = describe(progress) + evaluated
            bar.update(task, completed=progress.step, total=progress.num_steps, epoch=epoch, numbers=numbers)

        yield report
