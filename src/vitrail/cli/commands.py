"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from vitrail.cli import (
    audit,
    cache,
    datasets,
    embed,
    evaluate,
    explain,
    export,
    inspect,
    models,
    predict,
    probe,
    push,
    recipes,
    report,
    runs,
    train,
)

app = typer.Typer(
    help="Train, test and use Vision Transformers on your own images. Begin with: vitrail train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from vitrail import __version__

        typer.echo(f"vitrail {__version__}")
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]  # typer calls it
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command(name="train")(train.command)
app.command(name="evaluate")(evaluate.command)
app.command(name="predict")(predict.command)
app.command(name="explain")(explain.command)
app.command(name="inspect")(inspect.command)
app.command(name="report")(report.command)
app.command(name="embed")(embed.command)
app.command(name="probe")(probe.command)
app.command(name="export")(export.command)
app.command(name="push")(push.command)
app.command(name="audit")(audit.command)
app.command(name="recipes")(recipes.command)
app.command(name="models")(models.command)
app.command(name="datasets")(datasets.command)
app.command(name="cache")(cache.command)
app.add_typer(runs.app, name="runs")
