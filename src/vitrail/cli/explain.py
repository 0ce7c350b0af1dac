"""vitrail explain"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import (
    Against,
    Device,
    Head,
    Images,
    ImageSize,
    Json,
    Layer,
    Method,
    Offline,
    RunArgument,
    Target,
)


def command(
    run: RunArgument,
    images: Images,
    method: Method = None,
    target: Target = None,
    against: Against = None,
    layer: Layer = None,
    head: Head = None,
    output: Annotated[
        Path | None, typer.Option(help="Write below this folder; by default explanations/.", metavar="DIR")
    ] = None,
    figure: Annotated[
        bool, typer.Option("--figure", help="Draw the image, the map and both side by side, too.")
    ] = False,
    image_size: ImageSize = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Show where in images the evidence for a class lies.

    Writes the map over each image, and as numbers. The exit code is 1 if an image could not be read.
    """
    from vitrail import api
    from vitrail.cli.counting import shown_count
    from vitrail.cli.explanations import tell_explained
    from vitrail.loading import find_source

    run = find_source(run).name  # `last` may be another run by the time that this is done
    with shown_count() as report:
        done = api.explain(
            run,
            images,
            method=method,
            target=target,
            against=against,
            layer=layer,
            head=head,
            output=output,
            figure=figure,
            image_size=image_size,
            device=device,
            offline=offline,
            report=report,
        )
    tell_explained(run, done, json=json)
