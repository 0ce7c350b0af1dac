"""vitrail predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import Device, Images, ImageSize, Json, MergeTokens, Offline, RunArgument


def command(
    run: RunArgument,
    images: Images,
    output: Annotated[
        Path | None,
        typer.Option(help="Write them, or with --suggest the suggestions, to a .csv, .jsonl or .parquet file."),
    ] = None,
    sort: Annotated[
        Path | None,
        typer.Option(help="Copy the images into a folder for each class below this one.", metavar="DIR"),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --sort: link the images in place of copying.")] = False,
    suggest: Annotated[
        int | None, typer.Option(help="List the images most worth labelling, best first.", metavar="NUMBER")
    ] = None,
    image_size: ImageSize = None,
    merge_tokens: MergeTokens = 0,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Label images with a run's model.

    The five most probable classes of each image. The exit code is 1 if an image could not be read.
    """
    from vitrail import api
    from vitrail.cli.answers import to_json
    from vitrail.cli.counting import shown_count
    from vitrail.cli.output import print_json, say
    from vitrail.cli.results import print_answers
    from vitrail.loading import find_source

    run = find_source(run).name  # `last` may be another run by the time that this is done
    with shown_count() as report:
        predictions = api.predict(
            run,
            images,
            output=output,
            sort=sort,
            link=link,
            suggest=suggest,
            image_size=image_size,
            merge_tokens=merge_tokens,
            device=device,
            offline=offline,
            report=report,
        )
    unreadable = [prediction for prediction in predictions if prediction.error is not None]
    if json:
        print_json({"run": run} | to_json(predictions))
    else:
        print_answers(predictions, output)
    for note in predictions.notes:
        say(note)
    for prediction in unreadable:
        say(f"error: {prediction.error}")
    if unreadable:
        raise typer.Exit(1)
