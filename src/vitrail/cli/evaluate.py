"""vitrail evaluate"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vitrail.cli.options import Corrections, Device, Json, RunArgument

MOST_CLASSES = 25  # a wider confusion matrix does not fit a terminal; the figure and --json have it


def command(
    run: RunArgument,
    data: Annotated[
        list[str] | None, typer.Argument(help="Other data; without it, the run's own.", metavar="DATA")
    ] = None,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    require: Annotated[
        list[str] | None,
        typer.Option(help="Fail unless a result is at least this (loss, ece: at most).", metavar="NAME=VALUE"),
    ] = None,
    corrections: Corrections = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Test a run's model again.

    On the run's own data or other: accuracy with its interval, a table by class, the confusion matrix.
    """
    from vitrail import api
    from vitrail.cli import command_started
    from vitrail.cli.counting import shown_count
    from vitrail.cli.output import print_accuracy, print_json, print_line, say
    from vitrail.config import parse_requirements

    requirements = parse_requirements(require or [])
    with shown_count() as report:
        result = api.evaluate(
            run,
            data,
            split=split,
            corrections=corrections,
            device=device,
            report=report,
            started=command_started(),
        )
    metrics = result[split]
    missed = api.missed_requirements(metrics, requirements)
    if json:
        print_json(result | ({"error": "; ".join(missed)} if missed else {}))
    else:
        print_accuracy(split, metrics)
        print_line(f"balanced accuracy {metrics['balanced_accuracy']:.4f}  loss {metrics['loss']:.4f}")
        _print_classes(metrics)
    for sentence in missed:
        say(f"error: {sentence}")
    if missed:
        raise typer.Exit(1)


def _print_classes(metrics: dict[str, Any]) -> None:
    from vitrail.cli.output import print_line, print_table

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    print_line()
    print_table(
        ("class", "images", "precision", "recall", "f1"),
        [
            (row["class"], row["images"], share(row["precision"]), share(row["recall"]), share(row["f1"]))
            for row in metrics["per_class"]
        ],
    )
    if len(metrics["per_class"]) <= MOST_CLASSES:
        names = [row["class"] for row in metrics["per_class"]]
        print_line("\nconfusion matrix, rows true, columns predicted")
        print_table(("", *names), [(name, *row) for name, row in zip(names, metrics["confusion"], strict=True)])
