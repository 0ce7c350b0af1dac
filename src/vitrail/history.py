"""What runs say of themselves: the list of them, and how two of them differ.

Files are read as the JSON they are, not checked as a config is: so a damaged run, or one of another version, is still
shown, and nothing here waits for torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitrail.errors import ConfigError
from vitrail.runs import RUNS, RunDirectory, find_run

Differences = dict[str, dict[str, Any]]  # by key: what "a" has and what "b" has, one of them left out where it has none

SIGNIFICANT = 0.05


class _Unreadable(Exception):
    """Why a file of a run says nothing, as a sentence."""


def list_runs(folder: str | Path = RUNS) -> list[dict[str, Any]]:
    """The runs in `folder`, or `folder` itself if it is one, newest last: one object each, ready for JSON.

    Each has `run` (its path), `name`, `state`, `problem`, `dataset`, `recipe`, `model`, `accuracy` and
    `accuracy_ci95` (of the test, fractions), `total_seconds` and `created`, None where that is not known. The state is
    "finished", "running", "interrupted" (`--resume` goes on from a checkpoint), "unfinished" (it has none, `--resume`
    begins again) or "damaged", and then `problem` says what is.
    Raises ConfigError if `folder` is none; runs/ may be missing.
    """
    root = Path(folder)
    if not root.is_dir():
        if root == RUNS and not root.exists():
            return []
        raise ConfigError(f"{folder} is not a folder; give one that holds runs, or a run's own")
    paths = [root] if _holds_run(root) else [path for path in root.iterdir() if _holds_run(path)]
    dated = sorted((_created(path), path) for path in paths)  # as all_runs does, which `last` goes by
    return [_row(path, created) for created, path in dated]


def _holds_run(path: Path) -> bool:
    """Whether there is a run or what is left of one; a run's folder is empty until its data are ready."""
    return any((path / name).is_file() for name in ("config.json", "journal.jsonl"))


def _created(path: Path) -> float:
    config_path = path / "config.json"
    return (config_path if config_path.is_file() else path).stat().st_mtime


def _row(path: Path, created: float) -> dict[str, Any]:
    run = RunDirectory(path)
    problems: list[str] = []
    config, finished = {}, None
    try:
        config = _read_object(run.config_path)
    except _Unreadable as error:
        problems.append(str(error))
    try:
        finished = _finished(run)
    except _Unreadable as error:
        problems.append(str(error))
    if finished is not None and not (path / "model.safetensors").is_file():
        problems.append("model.safetensors is missing")
    result = (finished or {}).get("result")
    return {
        "run": str(path),
        "name": path.resolve().name,
        "state": "damaged" if problems else "finished" if finished is not None else _unfinished_state(run),
        "problem": "; ".join(problems) or None,
        "dataset": _text(_at(result, "dataset")) or _dataset_name(config),
        "recipe": _text(_at(config, "recipe")) or _text(_at(result, "recipe")),
        "model": _text(_at(config, "model_name")) or _text(_at(result, "model")),
        "accuracy": _number(_at(result, "test", "accuracy")),
        "accuracy_ci95": _interval(_at(result, "test", "accuracy_ci95")),
        "total_seconds": _number(_at(result, "total_seconds")),
        "created": datetime.fromtimestamp(created, UTC).isoformat(timespec="seconds"),
    }


def _unfinished_state(run: RunDirectory) -> str:
    if run.in_training():
        return "running"
    return "interrupted" if any(run.checkpoints_path.glob("step-*.json")) else "unfinished"


def _finished(run: RunDirectory) -> dict[str, Any] | None:
    """The journal's last event of a run that has finished, else None."""
    path = run.journal.path
    try:
        events = run.journal.events()
    except OSError as error:
        raise _Unreadable(f"{path.name} could not be read: {error.strerror or error}") from None
    if not events and (run.environment_path.is_file() or path.is_file()):  # the journal comes before the environment
        raise _Unreadable(f"{path.name} is {'damaged' if path.is_file() else 'missing'}")
    finished = next((event for event in reversed(events) if event.get("event") == "finished"), None)
    if finished is not None and not isinstance(finished.get("result"), dict):
        raise _Unreadable(f"{path.name} holds no result")
    return finished


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises _Unreadable if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Unreadable(f"{path.name} is missing") from None
    except OSError as error:
        raise _Unreadable(f"{path.name} could not be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError too
        raise _Unreadable(f"{path.name} is torn or no JSON") from None
    if not isinstance(content, dict):
        raise _Unreadable(f"{path.name} is not an object of settings")
    return content


def _dataset_name(config: Mapping[str, Any]) -> str | None:
    """What the run's data are called, as `train` calls them."""
    sources = [_at(config, "data", "source"), *(_at(config, "data", "also") or ())]
    names = [Path(source).name or source for source in sources if isinstance(source, str)]
    return "+".join(names) or None


def _at(tree: Any, *keys: str) -> Any:
    """What a tree of objects has below these keys, or None."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _interval(value: Any) -> list[float] | None:
    numbers = [_number(end) for end in value] if isinstance(value, list) else []
    return value if len(numbers) == 2 and None not in numbers else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def difference(a: str | Path, b: str | Path) -> dict[str, Any]:
    """How two runs differ: `a`, `b` (paths), `settings`, `results`, `environment`, `paired` and `verdict`.

    The three in the middle have an object {"a": value, "b": value} for each key that is not equal, without the side
    that lacks the key. `paired` is `evaluation.paired.paired_comparison` of the test images, with the names of those
    that one run alone gets right as `images_only_a` and `images_only_b`; None unless both runs were tested on the same
    images with the same labels. `verdict` is one sentence. Of runs that have not finished only settings are compared.
    Raises ConfigError if a run is unknown, if both are the same, or if one is damaged.
    """
    first, second = find_run(a), find_run(b)
    if first.path.resolve() == second.path.resolve():
        raise ConfigError(f"{a} and {b} are the same run, {first.path}; name two different ones")
    runs = (first, second)
    found: dict[str, Any] = {"a": str(first.path), "b": str(second.path)}
    found["settings"] = _differences(*(_config(run) for run in runs))
    found |= {"results": {}, "environment": {}, "paired": None}
    ends = [_end(run) for run in runs]
    unfinished = [str(run.path) for run, end in zip(runs, ends, strict=True) if end is None]
    if unfinished:
        have = "has" if len(unfinished) == 1 else "have"
        same = "" if found["settings"] else ", which are the same"
        verdict = f"{' and '.join(unfinished)} {have} not finished; only settings are compared{same}"
        return found | {"verdict": verdict}
    found["results"] = _differences(*(_results(end) for end in ends))
    found["environment"] = _differences(*(_environment(run) for run in runs))
    try:
        tests = [_tested(run) for run in runs]
        _check_same_images(runs, ends, tests)
    except _Unreadable as reason:
        return found | {"verdict": f"There is no paired test: {reason}"}
    found["paired"] = _paired(*tests)
    return found | {"verdict": _verdict(found, equal=tests[0] == tests[1])}


def _config(run: RunDirectory) -> dict[str, Any]:
    try:
        return _read_object(run.config_path)
    except _Unreadable as error:
        raise ConfigError(f"{run.path} is damaged: {error}; name another run") from None


def _end(run: RunDirectory) -> dict[str, Any] | None:
    try:
        return _finished(run)
    except _Unreadable as error:
        raise ConfigError(f"{run.path} is damaged: {error}; name another run") from None


def _environment(run: RunDirectory) -> dict[str, Any]:
    """What environment.json says: nothing where it was taken away, which keeps no one from comparing results."""
    try:
        return _read_object(run.environment_path)
    except _Unreadable:
        return {}


def _results(end: Mapping[str, Any] | None) -> dict[str, Any]:
    """The result without its tables and the run's name."""
    assert end is not None
    return {key: value for key, value in _flat(end["result"]).items() if key != "run" and not isinstance(value, list)}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Differences:
    """The keys, dotted, whose values differ or that only one has, in the order of `a`, then of `b`."""
    before, after = _flat(a), _flat(b)
    sides = (("a", before), ("b", after))
    return {
        key: {side: values[key] for side, values in sides if key in values}
        for key in before | after
        if key not in before or key not in after or before[key] != after[key]
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


Tested = dict[str, list[Any]]  # the columns image, label and prediction of predictions/test.parquet


_COLUMNS = {name: name for name in ("image", "label", "prediction")}


def _tested(run: RunDirectory) -> Tested:
    """What the run said of each test image. Raises _Unreadable if that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.predictions_path / "test.parquet"
    try:
        several = "labels" in pq.read_schema(path).names  # lists, where an image may have several
        columns = {"image": "image", "label": "labels", "prediction": "predictions"} if several else _COLUMNS
        table = pq.read_table(path, columns=list(columns.values()))
        return {name: table.column(column).to_pylist() for name, column in columns.items()}
    except (OSError, KeyError, pa.ArrowException):
        raise _Unreadable(f"{path} is missing or damaged") from None


def _check_same_images(
    runs: Sequence[RunDirectory], ends: Sequence[Mapping[str, Any] | None], tests: Sequence[Tested]
) -> None:
    """Raise _Unreadable unless both were tested on the same images, in content, name and label.

    Runs that do not know the fingerprint of their test images must have the same data.
    """
    a, b = tests
    if len(a["image"]) != len(b["image"]):
        raise _Unreadable(
            f"{runs[0].path} was tested on {len(a['image']):,} images, {runs[1].path} on {len(b['image']):,}"
        )
    prints = [(end or {}).get("test_fingerprint") for end in ends]
    same_names = None not in prints or a["image"] == b["image"]  # joined data sets lend their names to images
    if None in prints:
        prints = [_environment(run).get("data_fingerprint") for run in runs]
    if None in prints or prints[0] != prints[1] or not same_names or a["label"] != b["label"]:
        raise _Unreadable("the two runs were tested on different images or labels")


def _paired(a: Tested, b: Tested) -> dict[str, Any]:
    import numpy as np

    from vitrail.evaluation.paired import paired_comparison

    correct_a, correct_b = (
        np.array([label == given for label, given in zip(test["label"], test["prediction"], strict=True)], bool)
        for test in (a, b)
    )
    names = np.array(a["image"], object)
    return paired_comparison(correct_a, correct_b) | {
        "images_only_a": names[correct_a & ~correct_b].tolist(),
        "images_only_b": names[correct_b & ~correct_a].tolist(),
    }


def _verdict(found: Mapping[str, Any], equal: bool) -> str:
    """What the paired test says, in a sentence; `equal` runs give every test image the same label."""
    paired, images = found["paired"], f"{found['paired']['images']:,} test images"
    unequal_results = [key for key in found["results"] if not key.endswith("_seconds")]
    if equal and not found["settings"] and not unequal_results:
        return f"The runs are equal: the same settings, the same results, the same answers to {images}"
    if not paired["only_a"] and not paired["only_b"]:
        answers = "give the same answers" if equal else "are right and wrong on the same images"
        return f"The test images cannot tell them apart: both {answers}, {images}"
    digits = 1 if paired["images"] < 1000 else 2
    low, high = (100 * end for end in paired["difference_ci95"])
    p_value = paired["mcnemar_p"]
    points = 100 * paired["difference"]
    better = found["a"] if points > 0 else found["b"]
    if points < 0:
        points, low, high = -points, -high, -low
    shown_p = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
    interval = f"95 % interval {low:.{digits}f} to {high:.{digits}f}, exact McNemar {shown_p}"
    if p_value < SIGNIFICANT:
        return f"{better} is better by {points:.{digits}f} points ({interval})"
    between = f"The test images cannot tell them apart: {points:.{digits}f} points between them ({interval})"
    least = paired["smallest_difference"]
    if least is None:
        return f"{between}; {images} are too few to show any"
    return f"{between}; {images} show differences from about {100 * least:.{digits}f} points on"
