"""`vitrail train` on digits as a new user runs it: five seeds, one fixed split.

Aims: at least 97.5 % test accuracy in the mean, under 60 s in all on two cores, under 6 s of it before the first step.
"""

from __future__ import annotations

import statistics

from command import run_vitrail
from table import print_machine, print_markdown, spread

SEEDS = range(5)


def main() -> None:
    results = [run_vitrail("train", "digits", "--seed", str(seed))[0] for seed in SEEDS]
    accuracies = [result["test"]["accuracy"] for result in results]
    print_machine()
    print_markdown(
        ("seeds", "mean test accuracy, %", "deviation", "seconds in all", "before the first step", "training"),
        [
            (
                str(len(SEEDS)),
                f"{100 * statistics.mean(accuracies):.2f}",
                f"{100 * statistics.stdev(accuracies):.2f}",
                spread([result["total_seconds"] for result in results]),
                spread([result["preparation_seconds"] for result in results]),
                spread([result["train_seconds"] for result in results]),
            )
        ],
    )


if __name__ == "__main__":
    main()
