"""vitrail inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import Device, ImageSize, Json, Offline, ReadSettings, RunArgument


def command(
    run: RunArgument,
    data: Annotated[
        list[str] | None, typer.Argument(help="Images of any classes; without it, the run's own.", metavar="DATA")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write into this folder; by default inspection/ in the run.", metavar="DIR")
    ] = None,
    image_size: ImageSize = None,
    device: Device = "auto",
    offline: Offline = False,
    set_: ReadSettings = None,
    json: Json = False,
) -> None:
    """Draw what is inside a run's model.

    Its filters, positions, attention, tokens and layers, and what is unusual about them.
    """
    from vitrail import api
    from vitrail.cli.counting import shown_count
    from vitrail.cli.output import print_json, print_line
    from vitrail.config import parse_assignments

    with shown_count() as report:
        done = api.inspect(
            run,
            data,
            output=output,
            settings=parse_assignments(set_ or []),
            image_size=image_size,
            device=device,
            offline=offline,
            report=report,
        )
    if json:
        print_json(done.to_json())
        return
    drawn = [figure for figure in done.figures if not figure.drawn_before]
    kept = [figure.name for figure in done.figures if figure.drawn_before]
    missing = [name for name in done.missing if name not in kept]
    for figure in drawn:
        for remark in figure.remarks:
            print_line(f"{figure.title}: {remark}")
    for lead, names in (("No ", missing), ("Left as drawn before: ", kept)):
        for sentence in dict.fromkeys(done.missing[name] for name in names):
            same = [name.replace("_", " ") for name in names if done.missing[name] == sentence]
            print_line(f"{lead}{', '.join(same)}: {sentence}")
    number = len(drawn)
    print_line(f"{number} figure{'s' * (number != 1)} of {done.model} and inspection.json are in {done.folder}")
