"""vitrail runs diff"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vitrail.cli.options import Json

RunA = Annotated[str, typer.Argument(help="A run's directory, its name below runs/, or `last`.", metavar="A")]
RunB = Annotated[str, typer.Argument(help="The run to set beside it.", metavar="B")]


def command(a: RunA, b: RunB, json: Json = False) -> None:
    """Tell how two runs differ.

    Settings, results and environment; with the same test images also the paired test, and which of the two is better.
    """
    from vitrail.cli.output import print_json, print_line
    from vitrail.history import difference

    found = difference(a, b)
    if json:
        print_json(found)
        return
    print_line(f"a  {found['a']}\nb  {found['b']}")
    for name, kind in (("setting", "settings"), ("result", "results"), ("environment", "environment")):
        _print_differences(name, found[kind])
    if found["paired"] is not None:
        _print_images(found["paired"])
    print_line(f"\n{found['verdict']}")


def _print_differences(name: str, differences: dict[str, dict[str, Any]]) -> None:
    from vitrail.cli.output import print_line, print_table

    if not differences:
        return
    print_line()
    rows = [
        (key, *(_cell(sides[side]) if side in sides else "-" for side in "ab")) for key, sides in differences.items()
    ]
    print_table((name, "a", "b"), rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return {"None": "none", "True": "true", "False": "false"}.get(str(value), str(value))


def _print_images(paired: dict[str, Any]) -> None:
    """How many test images one run alone gets right, and the first of them."""
    from vitrail.cli.output import print_line
    from vitrail.errors import some

    print_line()
    for side in "ab":
        images = paired[f"images_only_{side}"]
        listed = f": {some(images)}" if images else ""
        print_line(f"only {side} is right on {len(images):,} of {paired['images']:,} test images{listed}")
