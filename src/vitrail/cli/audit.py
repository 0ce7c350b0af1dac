"""vitrail audit"""

from __future__ import annotations

from typing import Annotated

import typer

from vitrail.cli.options import Corrections, Json


def command(
    data: Annotated[list[str], typer.Argument(help="Data as for `vitrail train`.", metavar="DATA")],
    corrections: Corrections = None,
    json: Json = False,
) -> None:
    """Look for what is wrong with a data set.

    Counts by class, files that cannot be read, images with equal pixels within and across splits.
    """
    from vitrail import api
    from vitrail.cli.output import print_json, print_line, print_table

    audit = api.audit(data, corrections=corrections)
    if json:
        print_json(audit.to_dict())
        return
    for sentence in audit.sentences():
        print_line(sentence)
    print_line()
    columns = list(audit.counts.values())
    headings = ("class", *("images" if split == "all" else split for split in audit.counts))
    print_table(headings, [(name, *(column[place] for column in columns)) for place, name in enumerate(audit.classes)])
