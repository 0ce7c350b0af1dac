"""What `vitrail explain` prints: a line an image, or one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vitrail.cli.output import percent, print_json, print_table, say

if TYPE_CHECKING:
    from vitrail.explaining import ExplainedFiles


def tell_explained(run: str, done: ExplainedFiles, *, json: bool) -> None:
    """The result on stdout, notes and errors on stderr; ends the command with 1 if an image was not explained."""
    failed = [row for row in done if row.error is not None]
    if json:
        content = {"run": run, "method": done.method, "images": [row.to_json() for row in done]}
        print_json(content | ({"error": f"{len(failed)} of {len(done)} images were not explained"} if failed else {}))
    else:
        _print(done)
    for note in done.notes:
        say(note)
    for row in failed:
        say(f"error: {row.error}")
    if failed:
        raise typer.Exit(1)


def _print(done: ExplainedFiles) -> None:
    """A row an image: what was predicted, the question, and the picture that answers it; or that there is an error."""
    rows: list[tuple[str, ...]] = []
    for row in done:
        if row.found is not None:
            predicted = row.found["prediction"]
            told = ("-", "-") if predicted is None else (predicted["label"], f"{percent(predicted['probability'])} %")
            rows.append((row.image, *told, done.method, row.found["question"], row.files["png"]))
        else:
            rows.append((row.image, "error", *4 * "-"))
    if rows:
        print_table(("image", "prediction", "probability", "method", "shows", "file"), rows)
