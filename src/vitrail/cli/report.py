"""vitrail report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import Device, Json, Offline


def command(
    run: Annotated[
        str,
        typer.Argument(
            help="A run's directory or name below runs/, or `last` for the newest finished one.", metavar="RUN"
        ),
    ],
    no_images: Annotated[bool, typer.Option("--no-images", help="Leave every image of the data out.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the report alone, to this .html file.", metavar="FILE")
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Tell all about a run in one HTML file.

    Data, curves, results, mistakes and why, the model's inside, cost; and a model card, README.md, beside it.
    """
    from vitrail import api
    from vitrail.cli.output import print_json, print_line

    written = api.report(run, no_images=no_images, output=output, device=device, offline=offline)
    if json:
        print_json(written.to_json())
        return
    for sentence in written.missing:
        print_line(sentence)
    print_line(f"The report is in {written.path}")
    if written.card is not None:
        print_line(f"The model card is in {written.card}")
