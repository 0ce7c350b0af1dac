"""When a training is expected to end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitrail.training.loop import Progress


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Forecast:
    """Says once, before the work starts, when the command is expected to end."""

    def __init__(self) -> None:
        self.said = False

    def sentence(self, progress: Progress) -> str | None:
        """The sentence, the first time it can be said; None at all other times."""
        if self.said or not 0 < progress.seconds_left < math.inf:
            return None
        self.said = True
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + progress.seconds_left))
        return (
            f"{progress.num_steps:,} steps in {progress.num_epochs} epoch{'s' * (progress.num_epochs != 1)}, "
            f"expected to end in about {duration(progress.seconds_left)}, at {end}"
        )
