"""vitrail export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrail.cli.options import Json, Offline, RunArgument


def command(
    run: RunArgument,
    format: Annotated[str, typer.Option("--format", help="timm or huggingface.", metavar="FORMAT")],
    output: Annotated[
        Path | None, typer.Option(help="A new or empty folder; without it, exports/<run>-<format>.", metavar="DIR")
    ] = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Write a run's model for another library.

    As a folder that timm or Hugging Face's transformers loads, after what was written has given the same logits.
    """
    from vitrail import api
    from vitrail.cli.output import print_json, print_line

    exported = api.export(run, format, output, offline=offline)
    if json:
        print_json(exported.to_dict())
        return
    print_line(f"{exported.path} holds {', '.join(exported.files)}")
    print_line(
        f"checked: read again, {exported.images} random images have the same logits, "
        f"but for {exported.largest_difference:.1g} at most"
    )
    for note in exported.notes:
        print_line(f"note: {note}")
    print_line(f"load it with {exported.use}")
