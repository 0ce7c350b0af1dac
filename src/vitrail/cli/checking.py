"""`vitrail explain --check`: which method to trust, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitrail.cli.output import percent, print_json, print_line, print_table, say
from vitrail.errors import ConfigError

_MEASURES = {"deletion": "deletion", "insertion": "insertion", "faithfulness": "insertion - deletion", "road": "ROAD"}


def check_images(run: str, images: Sequence[str] | None, num_images: int | None) -> None:
    """Raise ConfigError where nothing is to be explained, and where nothing is to be checked."""
    if num_images is not None:
        raise ConfigError("--images is for --check; to explain fewer images, name fewer")
    if not images:
        raise ConfigError(f"No image is named; name some, or ask which method to trust: vitrail explain {run} --check")


def show_check(
    run: str,
    images: Sequence[str] | None,
    method: str | None,
    num_images: int | None,
    unused: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    json: bool,
) -> None:
    """A row a method, the best first, with 95 % intervals; then the advice, and on stderr where the figure is.

    `unused` are options that mean nothing here. Raises ConfigError if one is given, and as `vitrail.check_methods`.
    """
    from vitrail import api
    from vitrail.cli.counting import shown_count

    wrong = [name for name, value in unused.items() if value is not None]
    if wrong:
        raise ConfigError(f"--{wrong[0]} means nothing with --check, which compares whole methods; leave it out")
    methods = None if method is None else [method]
    with shown_count("maps") as report:
        result = api.check_methods(run, images, methods=methods, num_images=num_images, report=report, **options)
    if json:
        print_json(result)
        return
    rows = [
        (name, *(_with_interval(entry[measure]) for measure in _MEASURES), _hits(entry))
        for name, entry in result["methods"].items()
    ]
    print_table(("method", *_MEASURES.values(), "points right"), rows)
    print_line(result["advice"])
    say(f"{result['images']:,} images of {result['dataset']}; drawn in {result['files']['png']}")


def _with_interval(measured: Mapping[str, Any]) -> str:
    low, high = measured["ci95"]
    return f"{measured['mean']:.3f} ({low:.3f} to {high:.3f})"


def _hits(entry: Mapping[str, Any]) -> str:
    return f"{percent(entry['mosaics']['hits']['mean'])} %" if "mosaics" in entry else "-"
