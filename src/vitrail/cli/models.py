"""vitrail models"""

from __future__ import annotations

from vitrail.cli.options import Json


def command(json: Json = False) -> None:
    """List the models and their sizes.

    Parameters, rows and columns of the images, size of a patch in pixels.
    """
    from vitrail.cli.output import print_json, print_table
    from vitrail.models import MODELS, count_parameters, model_config

    rows = []
    for name in MODELS:
        config = model_config(name)
        rows.append((name, count_parameters(config), "x".join(map(str, config.image_size)), config.patch_size[0]))
    headings = ("model", "parameters", "image_size", "patch_size")
    if json:
        print_json({"models": [dict(zip(headings, row, strict=True)) for row in rows]})
    else:
        print_table(headings, rows)
