"""The verbs: one function each, composed of what the other modules do."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from torch import nn

from vitrail import history, models
from vitrail.checkpoint import load_model
from vitrail.classifier import Classifier, Count
from vitrail.config import RunConfig, config_to_json, parse_duration
from vitrail.data.audit import Audit
from vitrail.data.splits import read_splits
from vitrail.engines.adaptation import SizeLike, adapted, changes
from vitrail.engines.pytorch import TorchEngine, resolve_device
from vitrail.errors import ConfigError, suggest
from vitrail.labelling import Predictions, Wishes, label_images, list_inputs
from vitrail.preparation import (
    Request,
    TrainingData,
    audit_requested,
    evaluation_images,
    is_repetition,
    open_requested,
    prepare_new,
    prepare_resumed,
)
from vitrail.reporting.run_figures import (
    Picture,
    run_html,
)
from vitrail.runs import RunDirectory, copy_decisions, find_run, new_run, newest_unfinished
from vitrail.session import metrics_of, say_nothing, train_prepared

if TYPE_CHECKING:
    from vitrail.training.loop import Report


logger = logging.getLogger(__name__)

_BETTER_SMALL = frozenset({"loss", "ece", "loss_uncalibrated", "ece_uncalibrated"})
_NO_MERIT = frozenset({"temperature", "smallest_difference"})


class Run:
    """A run's directory and its verbs."""

    def __init__(self, path: str | Path) -> None:
        self.directory = find_run(path)
        self.path = self.directory.path

    @property
    def config(self) -> RunConfig:
        """Every setting of the run."""
        return self.directory.config()

    @property
    def result(self) -> dict[str, Any] | None:
        """What `vitrail train --json` printed, or None if the run has not finished."""
        return self.directory.result()

    def classifier(self, device: str = "auto") -> Classifier:
        """The run's best model, ready to predict."""
        return load(self.path, device)

    def evaluate(self, data: str | None = None, split: str = "test", device: str = "auto") -> dict[str, Any]:
        """As `vitrail.evaluate`."""
        return evaluate(self.path, data, split=split, device=device)

    def predict(self, images: Sequence[str | Path] | str | Path, device: str = "auto") -> Predictions:
        """As `vitrail.predict`."""
        return predict(self.path, images, device=device)

    def figures(self) -> dict[str, Picture]:
        """The pictures of the run by name, such as "curves" and "confusion"; a notebook shows each as it is."""
        return {path.stem: Picture(path) for path in sorted(self.directory.figures_path.glob("*.png"))}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return run_html(str(self.path), self.result, self.figures())


def create_model(name: str, **settings: Any) -> nn.Module:
    """An untrained model by name: `create_model("vit_tiny_patch16_224", num_classes=10)`, settings of ViTConfig.

    It takes (B, C, rows, columns) uint8 in 0..255 or float in 0..1 and gives logits (B, num_classes).
    Raises ConfigError for an unknown name or settings that do not fit together.
    """
    return models.create_model(name, **settings)


def load(
    run: str | Path, device: str = "auto", *, image_size: SizeLike | None = None, merge_tokens: int = 0
) -> Classifier:
    """The classifier of a run ("last" is the newest finished one), on `device`.

    With `image_size`, such as 96 or (96, 128) rows and columns, it looks at larger, smaller or non-square images than
    in training; with `merge_tokens` it merges so many patches in each block, which is faster and a little less exact.
    Raises ConfigError if there is no such run, or for what does not fit its model, CheckpointError if that is missing
    or damaged.
    """
    model, card = load_model(find_run(run).path)
    card = adapted(model, card, image_size, merge_tokens)
    return Classifier(TorchEngine(model, resolve_device(device)), card)


def train(
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    time: float | str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
    corrections: str | Path | None = None,
    report: Report | None = None,
    started: float | None = None,
) -> Run:
    """Train a classifier and test it once; gives the finished run.

    `data` is a named set, a folder or a Parquet file, or several of these, joined; None is `digits`. `corrections` is a
    CSV file of corrections to it. `settings` are dotted keys, as for --set. `time` is the wall time for all of it, in
    seconds or as text such as "10m", instead of `epochs`. `recipe` is a recipe's name, or a run whose settings are
    taken; if none is changed, nor its data, a finished run is repeated, with the same weights to the last bit.
    `report` is called with a Progress as training goes on; `started` is time.perf_counter() at the command's start.
    With `resume`, the run at `out`, or the newest unfinished one, goes on; it must have the same config and data.
    Raises ConfigError, DataError, TrainingError or CheckpointError with one sentence, Interrupted after a signal.
    """
    started = perf_counter() if started is None else started
    seconds = parse_duration(time) if isinstance(time, str) else time
    request = Request(_sources(data), recipe, model, epochs, seed, precision, settings, _path(corrections), seconds)
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
        _create(directory, config, content)
        if request.like is not None:
            _repeat_if_equal(request.like, directory, config, content, str(target))
    with directory.locked():
        train_prepared(directory, config, content, target, report or say_nothing, started)
    return Run(directory.path)


def _repeat_if_equal(
    like: RunDirectory, directory: RunDirectory, config: RunConfig, content: TrainingData, device: str
) -> None:
    """Let a run take the decisions of the one it repeats, if it does repeat it; say which of the two it is."""
    if is_repetition(like, config, content, device):
        copy_decisions(like, directory)
        logger.info("%s", f"This repeats {like.path} step by step")
    else:
        logger.info(
            "%s", f"This takes the settings of {like.path}, and is no repetition: data, settings or device differ"
        )


def _sources(data: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    given = [] if data is None else [data] if isinstance(data, str | Path) else data
    return tuple(map(str, given))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _create(directory: RunDirectory, config: RunConfig, content: TrainingData) -> None:
    """Make the run's directory, with all that is known before training."""
    audit = None if content.audit is None else json.dumps(content.audit.to_dict(), indent=1) + "\n"
    corrections = None if content.corrections is None else content.corrections.text
    directory.create(config_to_json(config), content.splits.to_json() + "\n", corrections, audit)


def evaluate(
    run: str | Path,
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    split: str = "test",
    corrections: str | Path | None = None,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    device: str = "auto",
    started: float | None = None,
    report: Count | None = None,
) -> dict[str, Any]:
    """How good a run's model is on one split: the JSON object of `vitrail evaluate`, results under the split's name.

    Without `data` the run's own data and splits are used, with its corrections or other `corrections`. Other data must
    have classes of the model; its published split of that name is taken, or all of it where none is published, without
    images that the run was trained on or chosen by. `image_size` and `merge_tokens` are as for `load`; the result says
    them where they differ from training.
    Raises ConfigError for an unknown run or split, or classes that differ, DataError for data that changed.
    """
    started = perf_counter() if started is None else started
    directory = find_run(run)
    if directory.result() is None and data is None and split == "test":
        raise ConfigError(
            f"{directory.path} has not finished, and its test images are read once, at the end; "
            "finish it with --resume, or evaluate --split validation"
        )
    classifier = load(directory.path, device, image_size=image_size, merge_tokens=merge_tokens)
    preprocess = classifier.card.preprocess
    dataset, images = evaluation_images(directory, _sources(data), split, _path(corrections), preprocess)
    logits = classifier.logits(images.pixels, report)
    known = directory.result() or {}
    config = directory.config()
    return {
        "run": str(directory.path),
        "dataset": dataset.name,
        "recipe": config.recipe,
        "model": config.model_name,
        "parameters": models.count_parameters(classifier.card.model),
        "images_seen": known.get("images_seen"),
        "train_seconds": known.get("train_seconds"),
        "total_seconds": round(perf_counter() - started, 3),
        "stopped": known.get("stopped"),
        **changes(classifier.card, merge_tokens),
        split: metrics_of(classifier.card, config, logits, images.labels),
    }


def missed_requirements(metrics: Mapping[str, Any], requirements: Mapping[str, float]) -> list[str]:
    """One sentence for each result that misses what is required of it, such as {"accuracy": 0.95}.

    Results must be at least as large; loss and ece, which are better small, at most.
    Raises ConfigError for a name that is no single number among the results.
    """
    numbers = {
        name: value for name, value in metrics.items() if isinstance(value, int | float) and name not in _NO_MERIT
    }
    for name in requirements:
        if name not in numbers:
            raise ConfigError(
                f"There is no result {name!r} to require.{suggest(name, numbers)} Use one of {', '.join(numbers)}"
            )
    missed: list[str] = []
    for name, required in requirements.items():
        if name in _BETTER_SMALL and not numbers[name] <= required:
            missed.append(f"{name} is {numbers[name]:.6g}, above the required {required:.6g}")
        elif name not in _BETTER_SMALL and not numbers[name] >= required:
            missed.append(f"{name} is {numbers[name]:.6g}, below the required {required:.6g}")
    return missed


def predict(
    run: str | Path,
    images: Sequence[str | Path] | str | Path,
    *,
    output: str | Path | None = None,
    sort: str | Path | None = None,
    link: bool = False,
    suggest: int | None = None,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    device: str = "auto",
    report: Count | None = None,
) -> Predictions:
    """A Prediction for each image file; `images` are files, folders (searched whole) and globs.

    A file that cannot be read has a Prediction with its `error` set. With `output`, a .csv, .jsonl or .parquet file,
    they are also written there. With `sort`, a folder, each image is copied (with `link`: linked) into its class's
    folder there, or into not_sure/; images below that folder are no input. With `suggest`, a number, the result's
    `suggestions` are so many images most worth labelling, best first, and `output` gets these; images that the run
    has seen are none of them. `image_size` and `merge_tokens` are as for `load`; `report` is called with the numbers of
    images done and in all.
    Raises ConfigError for an unknown run, paths without images, or an unfit `output`, `sort` or `suggest`, and
    CheckpointError when the disk refuses; what is sorted by then stays.
    """
    wishes = Wishes(None if output is None else Path(output), None if sort is None else Path(sort), link, suggest)
    directory = find_run(run)
    paths, notes = list_inputs([images] if isinstance(images, str | Path) else list(images), wishes)
    wishes.check()
    known = None
    if suggest is not None and directory.splits_path.is_file():
        known = read_splits(directory.splits_path).hashes()
    classifier = load(directory.path, device, image_size=image_size, merge_tokens=merge_tokens)
    predictions = label_images(classifier, paths, wishes, known=known, report=report)
    predictions.notes = (*notes, *predictions.notes)
    return predictions


def audit(data: str | Path | Sequence[str | Path], *, corrections: str | Path | None = None) -> Audit:
    """What is wrong with the images of `data`: counts by class, broken files, equal images within and across splits.

    Raises ConfigError and DataError as `vitrail.train` does for data and corrections that cannot be used at all.
    """
    return audit_requested(Request(_sources(data), corrections=_path(corrections)))


def list_models(pattern: str | None = None, *, report: Count | None = None) -> list[dict[str, Any]]:
    """The models whose names hold or match `pattern`, or all: what `vitrail models --json` prints.

    `timm:PATTERN` lists timm's. `report` is called with the numbers of models done and in all.
    Raises ConfigError where none matches.
    """
    from vitrail.models import listing

    return listing.list_models(pattern, report)


def list_runs(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """The runs in `folder`, or the one that it is, newest last: what `vitrail runs --json` prints.

    Raises ConfigError if `folder` is none; runs/ may be missing.
    """
    return history.list_runs(folder)


def difference(a: str | Path, b: str | Path) -> dict[str, Any]:
    """How two runs differ, and which is better on the same test images: the JSON object of `vitrail runs diff`.

    Raises ConfigError if a run is unknown, if both are the same, or if one is damaged.
    """
    return history.difference(a, b)
