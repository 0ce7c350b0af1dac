"""vitrail datasets"""

from __future__ import annotations

from vitrail.cli.options import Json


def command(json: Json = False) -> None:
    """List the named data sets.

    A path works in the place of a name: a folder of class folders, of IDX or Parquet files, or a Parquet file.
    """
    from vitrail.cli.output import print_json, print_table
    from vitrail.data.named import NAMED

    about = {name: named.about for name, named in NAMED.items()}
    if json:
        print_json({"datasets": about})
    else:
        print_table(("data set", "about"), list(about.items()))
