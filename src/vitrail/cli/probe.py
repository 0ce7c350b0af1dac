"""vitrail probe"""

from __future__ import annotations

from typing import Annotated

import typer

from vitrail.cli.options import Device, ImageSize, Json, MergeTokens, Offline, ReadSettings, RunArgument


def command(
    run: RunArgument,
    data: Annotated[
        list[str] | None, typer.Argument(help="Data of any classes; without it, the run's own.", metavar="DATA")
    ] = None,
    method: Annotated[
        str, typer.Option(help="linear: a linear classifier; knn: the most similar training images.")
    ] = "linear",
    image_size: ImageSize = None,
    merge_tokens: MergeTokens = 0,
    device: Device = "auto",
    offline: Offline = False,
    set_: ReadSettings = None,
    json: Json = False,
) -> None:
    """Tell classes by a run's vectors alone.

    A linear classifier or nearest neighbours on them, the model left as it is; accuracy with its interval.
    """
    from vitrail import api
    from vitrail.cli.counting import shown_count
    from vitrail.cli.output import accuracy_line, print_json, print_line
    from vitrail.config import parse_assignments
    from vitrail.errors import ConfigError, suggest

    methods = {"linear": api.linear_probe, "knn": api.knn}
    if method not in methods:
        raise ConfigError(f"method={method!r} is not known.{suggest(method, methods)} Use one of {', '.join(methods)}")
    with shown_count() as report:
        result = methods[method](
            run,
            data,
            settings=parse_assignments(set_ or []),
            image_size=image_size,
            merge_tokens=merge_tokens,
            device=device,
            offline=offline,
            report=report,
        )
    if json:
        print_json(result)
        return
    print_line(accuracy_line("test", result["test"]))
    chosen = f"C={result['C']:g}" if method == "linear" else f"k={result['k']}"
    print_line(f"{method}, {chosen} chosen on {result['validation']['images']:,} validation images")
