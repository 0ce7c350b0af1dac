"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")]
Corrections = Annotated[
    Path | None, typer.Option(help="A CSV file: images to drop or relabel, classes to rename or merge.")
]
RunArgument = Annotated[
    str,
    typer.Argument(help="A run's directory or name below runs/, or `last` for the newest finished one.", metavar="RUN"),
]
