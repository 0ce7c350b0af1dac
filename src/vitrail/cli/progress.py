"""How training is seen while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vitrail.cli.forecast import Forecast, duration
from vitrail.cli.output import may_redraw, percent, say

if TYPE_CHECKING:
    from vitrail.training.loop import Progress, Report

LINE_SECONDS = 2.0  # least time between plain lines


@contextmanager
def shown_progress() -> Generator[Report]:
    """A report function for `vitrail.train`: redraws one line on a terminal; never in a pipe or with NO_COLOR."""
    if may_redraw():
        from vitrail.cli.bar import progress_bar

        with progress_bar() as report:
            yield report
    else:
        yield _Lines()


def chosen_by(evaluation: Mapping[str, Any]) -> tuple[str, float]:
    """What the best epoch is chosen by, in words, and its value in a line of an evaluation."""
    keys = ("mean_average_precision", "balanced_accuracy", "accuracy")
    key = next(key for key in keys if key in evaluation)
    return key.replace("_", " "), evaluation[key]


def _epoch_line(progress: Progress) -> str:
    assert progress.evaluation is not None
    name, value = chosen_by(progress.evaluation)
    loss = progress.evaluation["loss"]
    trained = f"training loss {progress.loss:.4f}"
    if progress.accuracy is not None:
        trained += f" accuracy {percent(progress.accuracy)} %"
    return (
        f"epoch {progress.epoch}/{progress.num_epochs}  validation {name} {percent(value, 2)} % loss {loss:.4f}  "
        f"{trained}  {progress.images_per_second:,.0f} images/s  {duration(progress.seconds_left)} left"
    )


class _Lines:
    """Plain lines: an epoch's result, at most one every other second, and the last."""

    def __init__(self) -> None:
        self.forecast = Forecast()
        self.last_line = -1.0

    def __call__(self, progress: Progress) -> None:
        if self.last_line < 0:  # the first report: torch is imported and the data are read
            self.last_line = time.monotonic()
        for sentence in (progress.message, self.forecast.sentence(progress)):
            if sentence:
                say(sentence)
        due = time.monotonic() - self.last_line > LINE_SECONDS
        if progress.evaluation is not None and (due or progress.step == progress.num_steps):
            self.last_line = time.monotonic()
            say(_epoch_line(progress))
