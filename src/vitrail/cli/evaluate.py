"""vitrail evaluate"""

from __future__ import annotations

from typing import Annotated

import typer

from vitrail.cli.options import Corrections, Device, ImageSize, Json, MergeTokens, Offline, ReadSettings, RunArgument


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
    image_size: ImageSize = None,
    merge_tokens: MergeTokens = 0,
    device: Device = "auto",
    offline: Offline = False,
    set_: ReadSettings = None,
    json: Json = False,
) -> None:
    """Test a run's model again.

    On the run's own data or other: accuracy with its interval, a table by class, the confusion matrix.
    """
    from vitrail import api
    from vitrail.cli import command_started
    from vitrail.cli.counting import shown_count
    from vitrail.cli.output import print_accuracy, print_json, say
    from vitrail.cli.results import print_classes
    from vitrail.config import parse_assignments, parse_requirements
    from vitrail.evaluation.requirements import missed_requirements

    requirements = parse_requirements(require or [])
    with shown_count() as report:
        result = api.evaluate(
            run,
            data,
            split=split,
            corrections=corrections,
            settings=parse_assignments(set_ or []),
            image_size=image_size,
            merge_tokens=merge_tokens,
            device=device,
            offline=offline,
            report=report,
            started=command_started(),
        )
    metrics = result[split]
    missed = missed_requirements(metrics, requirements)
    if json:
        print_json(result | ({"error": "; ".join(missed)} if missed else {}))
    else:
        print_accuracy(split, metrics)
        print_classes(metrics)
    for sentence in missed:
        say(f"error: {sentence}")
    if missed:
        raise typer.Exit(1)
