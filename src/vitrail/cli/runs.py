"""vitrail runs"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from vitrail.cli import runs_diff
from vitrail.cli.options import Json
from vitrail.errors import ConfigError

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def command(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Option(help="Where the runs are, or one run; without it, runs/.", metavar="FOLDER")
    ] = None,
    json: Json = False,
) -> None:
    """List the runs, or tell how two of them differ.

    Data, model, test accuracy with its interval, seconds and state of each, newest last.
    """
    if context.invoked_subcommand is not None:
        if folder is not None or json:
            raise ConfigError("Options go behind `diff`, which takes --json alone: vitrail runs diff A B --json")
        return

    from vitrail.cli.output import print_json, print_table, say
    from vitrail.history import RUNS, list_runs

    where = folder or RUNS
    rows = list_runs(where)
    if json:
        print_json({"runs": rows})
    elif rows:
        # Below runs/ a bare name is enough wherever a run is asked for.
        name = "name" if folder is None else "run"
        headings = ("run", "data", "recipe", "model", "test accuracy (95 %)", "seconds", "state", "created")
        print_table(headings, [(row[name], *_cells(row)) for row in rows])
    else:
        say(f"There are no runs in {where}; `vitrail train` makes one")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from vitrail.cli.output import percent

    accuracy = "-"
    if row["accuracy"] is not None:
        accuracy = percent(row["accuracy"])
        if row["accuracy_ci95"] is not None:
            accuracy += " ({} to {})".format(*map(percent, row["accuracy_ci95"]))
    seconds = "-" if row["total_seconds"] is None else f"{row['total_seconds']:.0f}"
    state = row["state"] if row["problem"] is None else f"{row['state']}: {row['problem']}"
    created = datetime.fromisoformat(row["created"]).astimezone().strftime("%Y-%m-%d %H:%M")
    return (*(row[key] or "-" for key in ("dataset", "recipe", "model")), accuracy, seconds, state, created)


app.command(name="diff")(runs_diff.command)
