"""vitrail explain"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli.options import (
    Against,
    Check,
    Device,
    Head,
    ImageSize,
    Json,
    Layer,
    Method,
    NumImages,
    Offline,
    OptionalImages,
    RunArgument,
    Target,
)


def command(
    run: RunArgument,
    images: OptionalImages = None,
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
    check: Check = False,
    num_images: NumImages = None,
    image_size: ImageSize = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Show where in images the evidence for a class lies.

    Writes the map over each image, and as numbers. The exit code is 1 if an image could not be read. With --check it
    says which method to trust.
    """
    from vitrail import api
    from vitrail.cli.checking import check_images, show_check
    from vitrail.cli.counting import shown_count
    from vitrail.cli.explanations import tell_explained
    from vitrail.loading import find_source

    run = find_source(run).name  # `last` may be another run by the time that this is done
    shared: dict[str, Any] = {"output": output, "image_size": image_size, "device": device, "offline": offline}
    question: dict[str, Any] = {"target": target, "against": against, "layer": layer, "head": head}
    if check:
        show_check(run, images, method, num_images, {**question, "figure": figure or None}, shared, json=json)
        return
    check_images(run, images, num_images)
    with shown_count() as report:
        done = api.explain(run, images or [], method=method, figure=figure, report=report, **question, **shared)
    tell_explained(run, done, json=json)
