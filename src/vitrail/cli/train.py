"""vitrail train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli.options import Corrections, Device, Json


def command(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="A named set, a folder or a Parquet file, several are joined; by default digits.", metavar="DATA"
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name; `vitrail recipes` lists them.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model than the recipe's; `vitrail models`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    time: Annotated[str | None, typer.Option(help="Wall time of it all, such as 10m, instead of --epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order, augmentation and dropout.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory; without it, a new one below runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or the newest unfinished run.")] = False,
    corrections: Corrections = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, such as training.batch_size=128.", metavar="KEY=VALUE"),
    ] = None,
    json: Json = False,
) -> None:
    """Train and test a classifier.

    The best epoch by accuracy on validation images is kept, and tested once, at the end.
    """
    from vitrail.cli import command_started
    from vitrail.cli.output import print_json
    from vitrail.cli.progress import shown_progress
    from vitrail.config import parse_assignments

    settings = parse_assignments(set_ or [])

    from vitrail import api

    with shown_progress() as report:
        run = api.train(
            data,
            recipe=recipe,
            model=model,
            epochs=epochs,
            time=time,
            seed=seed,
            out=out,
            resume=resume,
            device=device,
            precision=precision,
            settings=settings,
            corrections=corrections,
            report=report,
            started=command_started(),
        )
    assert run.result is not None
    if json:
        print_json(run.result)
    else:
        _print_result(run.result, run.path)


def _print_result(result: dict[str, Any], path: Path) -> None:
    from vitrail.cli.output import percent, print_accuracy, print_line

    best = f"best epoch {result['best_epoch']} of {result['epochs']}"
    print_accuracy("test", result["test"])
    print_line(f"{best} by validation accuracy, {percent(result['validation']['accuracy'])} %")
    print_line(f"{result['model']}, {result['parameters']:,} parameters, {result['total_seconds']:.0f} s in all")
    print_line(f"model, figures and predictions are in {path}")
