"""vitrail models"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vitrail.cli.options import Json


def command(
    pattern: Annotated[
        str | None,
        typer.Argument(
            help="Part of a name, or a pattern such as '*_dinov3*'; 'timm:resnet*' lists timm's own.", metavar="PATTERN"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the models, their sizes and published weights.

    Parameters, rows and columns of the images, multiply-adds of one image in thousand millions (GFLOPs), publishers and
    licences of the weights. With PATTERN also each source of weights.
    """
    from vitrail import api
    from vitrail.cli.output import print_json, print_line, print_table

    rows = api.list_models(pattern)
    if json:
        print_json({"models": rows})
        return
    print_table(("model", "parameters", "image_size", "GFLOPs", "weights", "licence"), [_cells(row) for row in rows])
    sources = [(weights["source"], weights["licence"]) for row in rows for weights in row["weights"]]
    if pattern is not None and sources:
        print_line()
        print_table(("weights", "licence"), sources)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    publishers = [weights["source"].partition(":")[0] for weights in row["weights"]]
    published = ", ".join(f"{name} ({publishers.count(name)})" for name in dict.fromkeys(publishers))
    licences = ", ".join(sorted({weights["licence"] for weights in row["weights"]}))
    cells = (row["parameters"], row["image_size"], _three_digits(row["gflops"]), published or None, licences or None)
    return row["model"], *("-" if cell is None else cell for cell in cells)


def _three_digits(number: float | None) -> float | None:
    """16.348 -> 16.3, 474.9 -> 475."""
    if number is None:
        return None
    rounded = float(f"{number:.3g}")
    return int(rounded) if rounded >= 100 else rounded
