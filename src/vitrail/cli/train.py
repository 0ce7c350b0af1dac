"""vitrail train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import Corrections, Device, Init, Json, Offline, Settings


def command(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="A name, folder, table, tar shards or hf:OWNER/NAME; several are joined; digits.", metavar="DATA"
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name; `vitrail recipes` lists them.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model than the recipe's; `vitrail models`.")] = None,
    init: Init = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    time: Annotated[str | None, typer.Option(help="Wall time of it all, such as 10m, instead of --epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order, augmentation and dropout.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory; without it, a new one below runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or the newest unfinished run.")] = False,
    corrections: Corrections = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    offline: Offline = False,
    set_: Settings = None,
    json: Json = False,
) -> None:
    """Train and test a classifier.

    The best epoch by accuracy on validation images is kept, and tested once, at the end.
    """
    from vitrail.cli import command_started
    from vitrail.cli.output import print_json
    from vitrail.cli.progress import shown_progress
    from vitrail.cli.results import print_training
    from vitrail.config import parse_assignments

    settings = parse_assignments(set_ or [])

    from vitrail import api

    with shown_progress() as report:
        run = api.train(
            data,
            recipe=recipe,
            model=model,
            init=init,
            epochs=epochs,
            time=time,
            seed=seed,
            out=out,
            resume=resume,
            device=device,
            precision=precision,
            settings=settings,
            corrections=corrections,
            offline=offline,
            report=report,
            started=command_started(),
        )
    assert run.result is not None
    if json:
        print_json(run.result)
    else:
        print_training(run.result, run.path)
