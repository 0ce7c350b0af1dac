"""vitrail audit"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitrail.cli.options import Corrections, Device, Json, Offline

if TYPE_CHECKING:
    from vitrail.auditing import FullAudit


def command(
    data: Annotated[list[str], typer.Argument(help="Data as for `vitrail train`.", metavar="DATA")],
    corrections: Corrections = None,
    model: Annotated[
        str | None, typer.Option(help="A run or published model whose vectors tell wrong labels.", metavar="MODEL")
    ] = None,
    labels: Annotated[
        bool | None, typer.Option("--labels/--no-labels", help="Check labels; by default where it takes a minute.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with thumbnails, one .html file.")] = None,
    write_corrections: Annotated[
        Path | None, typer.Option(help="Write a new file of corrections, to look through and give to `train`.")
    ] = None,
    preview: Annotated[
        int | None, typer.Option(help="Draw so many images as a model sees them.", metavar="NUMBER")
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as data.fit=crop.", metavar="KEY=VALUE")
    ] = None,
    json: Json = False,
) -> None:
    """Look for what is wrong with a data set.

    Counts by class, files that cannot be read, copies within and across splits, odd images, suspicious labels.
    """
    from vitrail import api
    from vitrail.cli.counting import shown_count
    from vitrail.cli.output import print_json
    from vitrail.config import parse_assignments

    with shown_count() as report:
        audit = api.audit(
            data,
            corrections=corrections,
            settings=parse_assignments(set_ or []),
            model=model,
            labels=labels,
            html=html,
            write_corrections=write_corrections,
            preview=preview,
            device=device,
            offline=offline,
            report=report,
        )
    if json:
        print_json(audit.to_dict())
    else:
        _print(audit)


def _print(audit: FullAudit) -> None:
    """Sentences, where the files are, and how many images each class has."""
    from vitrail.cli.output import print_line, print_table

    for sentence in (*audit.sentences(), *audit.notes):
        print_line(sentence)
    for what, name in (("html", "The report"), ("preview", "What a model sees")):
        if what in audit.written:
            print_line(f"{name} is in {audit.written[what]}")
    print_line()
    columns = list(audit.counts.values())
    headings = ("class", *("images" if split == "all" else split for split in audit.counts))
    print_table(headings, [(name, *(column[place] for column in columns)) for place, name in enumerate(audit.classes)])
