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
ImageSize = Annotated[
    str | None, typer.Option(help="Rows and columns other than in training: 96, or 96x128.", metavar="SIZE")
]
MergeTokens = Annotated[
    int, typer.Option(help="Patches to merge in each block: faster, a little less exact.", metavar="NUMBER")
]
RunArgument = Annotated[
    str,
    typer.Argument(help="A run's directory or name below runs/, or `last` for the newest finished one.", metavar="RUN"),
]
