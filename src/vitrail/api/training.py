"""Training: from data to a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from vitrail.api.inputs import optional_path, sources
from vitrail.api.run import Run
from vitrail.config import parse_duration
from vitrail.engines.pytorch import resolve_device
from vitrail.errors import ConfigError
from vitrail.preparation import (
    Request,
    create_run,
    open_requested,
    prepare_new,
    prepare_resumed,
    repeat_if_equal,
)
from vitrail.runs import RunDirectory, find_run, new_run, newest_unfinished
from vitrail.session import say_nothing, train_prepared

if TYPE_CHECKING:
    from vitrail.training.loop import Report


def train(
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    init: str | Path | None = None,
    epochs: int | None = None,
    time: float | str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
    corrections: str | Path | None = None,
    offline: bool = False,
    report: Report | None = None,
    started: float | None = None,
) -> Run:
    """Train a classifier and test it once; gives the finished run.

    `data` is a named set, a folder or a table, or several of these, joined; None is `digits`. `corrections` is a
    CSV file of corrections to it. `settings` are dotted keys, as for --set. `time` is the wall time for all of it, in
    seconds or as text such as "10m", instead of `epochs`. `recipe` is a recipe's name, or a run whose settings are
    taken; if none is changed, nor its data, a finished run is repeated, with the same weights to the last bit.
    `init` names the weights to begin with: timm:<name>, hf:<owner>/<model>, torchvision:<name>, a file or folder of
    weights, or a run; the model is then theirs where no `model` is named. With `offline` nothing is downloaded.
    `report` is called with a Progress as training goes on; `started` is time.perf_counter() at the command's start.
    With `resume`, the run at `out`, or the newest unfinished one, goes on; it must have the same config and data.
    Raises ConfigError, DataError, TrainingError or CheckpointError with one sentence, Interrupted after a signal.
    """
    started = perf_counter() if started is None else started
    seconds = parse_duration(time) if isinstance(time, str) else time
    given, corrected = sources(data), optional_path(corrections)
    request = Request(given, recipe, model, epochs, seed, precision, settings, corrected, seconds)
    request = replace(request, init=None if init is None else str(init), offline=offline)
    target = resolve_device(device)
    if resume:
        directory = find_run(out) if out is not None else newest_unfinished()
        config, content = prepare_resumed(directory, request)
        if device == "auto":  # another device has other last bits
            began = directory.journal.last("start")
            target = target if began is None else resolve_device(began["device"])
    else:
        if out is not None:
            RunDirectory(out).check_unused()
        request = request.resolved()
        began = None if request.like is None else request.like.journal.last("start")
        if began is not None and device == "auto":
            with suppress(ConfigError):  # that device may not be here; then it is no repetition
                target = resolve_device(began["device"])
        dataset, corrections_read = open_requested(request)
        config, content = prepare_new(dataset, request, corrections_read)
        directory = RunDirectory(out) if out is not None else new_run(dataset.name, config.recipe)
        create_run(directory, config, content)
        if request.like is not None:
            repeat_if_equal(request.like, directory, config, content, str(target))
    with directory.locked():
        train_prepared(directory, config, content, target, report or say_nothing, started)
    return Run(directory.path)
