"""vitrail recipes"""

from __future__ import annotations

from typing import Annotated

import typer

from vitrail.cli.options import Json


def command(
    name: Annotated[str | None, typer.Argument(help="A recipe; without it, all are listed.", metavar="NAME")] = None,
    json: Json = False,
) -> None:
    """List the recipes, or the settings of one.

    With NAME every setting's key, value, type and meaning; --set changes them.
    """
    from vitrail.cli.output import print_json, print_line, print_table
    from vitrail.config import settings_of
    from vitrail.recipes import RECIPES, recipe_function

    if name is None:
        about = {recipe: (recipe_function(recipe).__doc__ or "").partition("\n")[0] for recipe in RECIPES}
        if json:
            print_json({"recipes": about})
        else:
            print_table(("recipe", "about"), list(about.items()))
        return
    function = recipe_function(name)
    settings = [setting._asdict() for setting in settings_of(function())]
    if json:
        print_json({"recipe": name, "settings": settings})
        return
    print_line(_dedented(function.__doc__ or ""))
    print_table(("key", "value", "type", "meaning"), [(*map(_cell, setting.values()),) for setting in settings])


def _cell(value: object) -> str:
    """A value as --set takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return {"None": "none", "True": "true", "False": "false"}.get(str(value), str(value))


def _dedented(docstring: str) -> str:
    from inspect import cleandoc

    return cleandoc(docstring) + "\n"
