"""vitrail embed"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import Device, Images, ImageSize, Json, MergeTokens, Offline, RunArgument


def command(
    run: RunArgument,
    images: Images,
    output: Annotated[Path, typer.Option(help="The .parquet, .jsonl or .csv file to write.")],
    image_size: ImageSize = None,
    merge_tokens: MergeTokens = 0,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Write the vector that a run's model makes of each image.

    For search, clustering and classifiers of one's own. The exit code is 1 if an image could not be read.
    """
    from vitrail import api
    from vitrail.cli.counting import shown_count
    from vitrail.cli.output import print_json, print_line, say
    from vitrail.loading import find_source

    run = find_source(run).name  # `last` may be another run by the time that this is done
    with shown_count() as report:
        done = api.embed(
            run,
            images,
            output=output,
            image_size=image_size,
            merge_tokens=merge_tokens,
            device=device,
            offline=offline,
            report=report,
        )
    if json:
        content = {"run": run, "output": str(output), "images": done.num_images, "width": done.width}
        total = done.num_images + len(done.unreadable)
        failed = {"error": f"{len(done.unreadable)} of {total} images could not be read"} if done.unreadable else {}
        print_json(content | failed)
    else:
        print_line(f"{done.num_images:,} vectors of {done.width} values are in {output}")
    for row in done.unreadable:
        say(f"error: {row.error}")
    if done.unreadable:
        raise typer.Exit(1)
