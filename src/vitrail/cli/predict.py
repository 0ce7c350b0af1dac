"""vitrail predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import Device, Json, RunArgument


def command(
    run: RunArgument,
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders (searched whole) and patterns.", metavar="IMAGE")
    ],
    output: Annotated[Path | None, typer.Option(help="Write them to a .csv, .jsonl or .parquet file.")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Label images with a run's model.

    The five most probable classes of each image. The exit code is 1 if an image could not be read.
    """
    from vitrail import api
    from vitrail.cli.output import percent, print_json, print_line, print_table, say

    predictions = api.predict(run, images, output=output, device=device)
    unreadable = [prediction for prediction in predictions if prediction.error is not None]
    failed = f"{len(unreadable)} of {len(predictions)} images could not be read"
    if json:
        content = {"run": str(api.Run(run).path), "predictions": [prediction.to_dict() for prediction in predictions]}
        print_json(content | ({"error": failed} if unreadable else {}))
    elif output is None:
        rows = [
            (
                prediction.image,
                prediction.label,
                f"{percent(prediction.probability)} %",
                ", ".join(f"{label} {percent(share)}" for label, share in prediction.top[1:]),
            )
            for prediction in predictions
            if prediction.probability is not None
        ]
        if rows:
            print_table(("image", "label", "probability", "next"), rows)
    else:
        print_line(f"{len(predictions) - len(unreadable):,} predictions are in {output}")
    for prediction in unreadable:
        say(f"error: {prediction.error}")
    if unreadable:
        raise typer.Exit(1)
