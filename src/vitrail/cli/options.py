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
Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders (searched whole), patterns and tables of paths.", metavar="IMAGE"),
]
ImageSize = Annotated[
    str | None, typer.Option(help="Rows and columns other than in training: 96, or 96x128.", metavar="SIZE")
]
MergeTokens = Annotated[
    int, typer.Option(help="Patches to merge in each block: faster where there are many.", metavar="NUMBER")
]
Offline = Annotated[bool, typer.Option("--offline", help="Download nothing; take what was downloaded before.")]
RunArgument = Annotated[
    str,
    typer.Argument(
        help="A run's directory or name below runs/, `last` for the newest finished one, or a published model, such as "
        "timm:NAME or hf:OWNER/NAME.",
        metavar="RUN",
    ),
]
ReadSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting on reading data, such as data.label_column=species.", metavar="KEY=VALUE"),
]
# Of `train` alone, which has the most.
Init = Annotated[
    str | None,
    typer.Option(
        help="Weights to begin with: timm:NAME, hf:OWNER/NAME, torchvision:NAME, a file, a folder or a run.",
        metavar="WEIGHTS",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, such as training.batch_size=128.", metavar="KEY=VALUE"),
]
# Of `explain` alone.
Method = Annotated[
    str | None, typer.Option(help="relevance, rollout, attention, grad_cam, integrated_gradients or occlusion.")
]
Target = Annotated[
    str | None, typer.Option(help="The class to explain; by default the one predicted.", metavar="CLASS")
]
Against = Annotated[
    str | None, typer.Option(help="Show what speaks for the target rather than for this class.", metavar="CLASS")
]
Layer = Annotated[
    int | None,
    typer.Option(help="The layer whose attention is shown, from 0, or from the end as -1.", metavar="NUMBER"),
]
Head = Annotated[int | None, typer.Option(help="Its head; by default the mean of all.", metavar="NUMBER")]
OptionalImages = Annotated[
    list[str] | None,
    typer.Argument(
        help="Image files, folders (searched whole), patterns and tables of paths; not needed with --check.",
        metavar="IMAGE",
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Measure how faithful each method is to this model, and say which to trust.")
]
NumImages = Annotated[int | None, typer.Option("--images", help="How many images to check on.", metavar="NUMBER")]
