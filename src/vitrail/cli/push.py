"""vitrail push"""

from __future__ import annotations

from typing import Annotated

import typer

from vitrail.cli.options import Json, RunArgument


def command(
    run: RunArgument,
    repository: Annotated[str, typer.Argument(help="Where to: owner/name on the hub.", metavar="OWNER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="Show it to its owner alone.")] = False,
    json: Json = False,
) -> None:
    """Publish a run's model on the Hugging Face hub.

    Its weights, classes and preprocessing, and a model card with its results. Images stay here.
    """
    from vitrail import api
    from vitrail.cli.output import print_json, print_line

    url = api.push(run, repository, private=private)
    if json:
        print_json({"run": str(api.Run(run).path), "repository": repository, "url": url})
    else:
        print_line(f"{url} has the model; use it as hf:{repository}")
