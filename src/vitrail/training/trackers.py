"""What metrics.jsonl gets, for MLflow or Weights & Biases besides, as training.tracker asks.

They get the settings once, the metrics with their step, and the numbers of the result; no image, no file, nothing of
the machine. All stays in the run's directory unless the user's environment names a server.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from vitrail.checkpoint import write_atomically
from vitrail.config import RunConfig, settings_of
from vitrail.errors import ConfigError, VitrailError
from vitrail.runs import RunDirectory

logger = logging.getLogger(__name__)

PROJECT = "vitrail"  # the experiment or project, where the environment names none
LARGEST_BATCH = 100  # settings that an MLflow server takes at once


def check_tracker(name: str) -> None:
    """Raise ConfigError, with the command that installs it, if the library of the tracker `name` is missing."""
    if name == "none":
        return
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:  # a folder ./wandb looks like a package, of no file
        raise ConfigError(
            f"training.tracker={name!r} needs a library that is not installed; "
            f"install it with: pip install 'vitrail[{name}]'"
        )


@contextmanager
def tracked(directory: RunDirectory, config: RunConfig) -> Generator[Tracker | None]:
    """The tracker that `config` asks for, or None; told at the end how the run ended.

    Raises ConfigError if its library is missing. Whatever else goes wrong with it is said once, and does no harm.
    """
    name = config.training.tracker
    if name == "none":
        yield None
        return
    check_tracker(name)
    tracker = Tracker(directory, config)
    exit_code = 1
    try:
        yield tracker
        exit_code = 0
    except VitrailError as error:
        exit_code = error.exit_code
        raise
    finally:
        tracker.close(exit_code)


class Tracker:
    """A run as another tool shows it; tracker.json, in the run's directory, says which of the tool's runs it is.

    A resumed run goes on in that one. What it repeats was sent already and, resume being exact, is the same: it is not
    sent again, for neither tool can take a point back.
    """

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        self._name, self._path = config.training.tracker, directory.path / "tracker.json"
        self._writer: _Writer | None = None
        self._known: dict[str, Any] = {}
        self._sent_step, self._sent_epoch, self._last_step = 0, 0.0, 0
        with self._harmless():
            if self._path.is_file():
                self._known = json.loads(self._path.read_text(encoding="utf-8"))
                self._sent_step, self._sent_epoch = self._known["step"], self._known["epoch"]
            opened = _WRITERS[self._name](directory.path.resolve(), self._known.get("id"))
            if not self._known:
                opened.settings({setting.key: setting.value for setting in settings_of(config)})
            self._writer = opened
            self._save()

    def resume(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Learn from the lines of metrics.jsonl, before those beyond the checkpoint are taken out, what was sent."""
        if not self._known:
            return
        with self._harmless():
            for line in lines:
                if "step" in line:
                    self._sent_step = max(self._sent_step, line["step"])
                else:
                    self._sent_epoch = max(self._sent_epoch, line["epoch"])
            self._last_step = self._sent_step
            self._save()

    def training(self, line: Mapping[str, Any]) -> None:
        """Send one object of training, its step apart."""
        self._last_step = line["step"]
        if self._writer is not None and line["step"] > self._sent_step:
            with self._harmless():
                self._writer.metrics({key: value for key, value in line.items() if key != "step"}, line["step"])

    def evaluation(self, line: Mapping[str, Any], step: int) -> None:
        """Send one object of evaluation, keys under the split's name as for TensorBoard."""
        self._last_step = step
        if self._writer is not None and line["epoch"] > self._sent_epoch:
            numbers = {f"{line['split']}_{key}": line[key] for key in line if key not in ("split", "epoch")}
            with self._harmless():
                self._writer.metrics(numbers, step)

    def result(self, result: Mapping[str, Any]) -> None:
        """Send the numbers of what `vitrail train` prints, such as result/test/accuracy."""
        if self._writer is not None:
            with self._harmless():
                self._writer.result(dict(_numbers(result, "result/")), self._last_step)

    def close(self, exit_code: int) -> None:
        """Say that the run has ended, with the exit code of its command."""
        if self._writer is not None:
            with self._harmless():
                self._writer.close(exit_code)
        self._writer = None

    def _save(self) -> None:
        if self._writer is not None:
            facts = {"tracker": self._name, "id": self._writer.id, "step": self._sent_step, "epoch": self._sent_epoch}
            write_atomically(self._path, json.dumps(facts) + "\n")

    @contextmanager
    def _harmless(self) -> Generator[None]:
        """Say what went wrong and send nothing more: no training ends because of a server."""
        try:
            yield
        except Exception as error:  # these libraries raise almost anything
            self._writer = None
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                "training.tracker=%s takes nothing more (%s); training goes on, metrics.jsonl has it all",
                self._name,
                reason if len(reason) <= 200 else f"{reason[:200]}...",
            )


def _numbers(result: Mapping[str, Any], prefix: str) -> Generator[tuple[str, float]]:
    """The finite numbers of a result under their keys, intervals as _low and _high; no lists by class."""
    for key, value in result.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif key.endswith("_ci95") and isinstance(value, list | tuple):
            yield from _numbers(dict(zip((f"{key}_low", f"{key}_high"), value, strict=True)), prefix)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield prefix + key, value


class _Writer(Protocol):
    """One run in another tool. Anything may be raised."""

    id: str

    def settings(self, settings: dict[str, Any]) -> None: ...

    def metrics(self, numbers: dict[str, float], step: int) -> None: ...

    def result(self, numbers: dict[str, float], step: int) -> None: ...

    def close(self, exit_code: int) -> None: ...


class _MLflow:
    """A run in mlruns/ of the run's directory, or on the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, folder: Path, run_id: str | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        # Its own are 7 and 120: a server that is gone would hold training up for many minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient

        server = os.environ.get("MLFLOW_TRACKING_URI")
        with _file_store_allowed():
            self._client = MlflowClient(server or (folder / "mlruns").as_uri())
            if run_id is None:
                run_id = self._client.create_run(self._experiment(), run_name=folder.name).info.run_id
            else:
                self._client.update_run(run_id, status="RUNNING")
        self.id: str = run_id

    def _experiment(self) -> str:
        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id

    def settings(self, settings: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in settings.items()]
        for first in range(0, len(params), LARGEST_BATCH):
            self._client.log_batch(self.id, params=params[first : first + LARGEST_BATCH])

    def metrics(self, numbers: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        self._client.log_batch(self.id, metrics=[Metric(key, value, now, step) for key, value in numbers.items()])

    def result(self, numbers: dict[str, float], step: int) -> None:
        self.metrics(numbers, step)

    def close(self, exit_code: int) -> None:
        status = {0: "FINISHED", 1: "FAILED"}.get(exit_code, "KILLED")  # more than 128: by a signal, to go on later
        self._client.set_terminated(self.id, status)


@contextmanager
def _file_store_allowed() -> Generator[None]:
    """Let MLflow keep a run in plain files, which it refuses unless told so by its environment.

    Its other local store, SQLite, was measured to take 8 s to be made, for every run anew.
    """
    name = "MLFLOW_ALLOW_FILE_STORE"
    before = os.environ.get(name)
    os.environ.setdefault(name, "true")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


class _WandB:
    """A run in wandb/ of the run's directory, for `wandb sync`; sent at once only where WANDB_MODE=online says so."""

    def __init__(self, folder: Path, run_id: str | None) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports to its makers
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            host=PROJECT,  # else the machine's name
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=folder.name,
            dir=str(folder),
            id=run_id,
            resume="allow",
            mode=cast(Any, os.environ.get("WANDB_MODE") or "offline"),
            reinit="create_new",  # a run that the caller has open stays open
            settings=settings,
        )
        self.id: str = self._run.id

    def settings(self, settings: dict[str, Any]) -> None:
        self._run.config.update(settings)

    def metrics(self, numbers: dict[str, float], step: int) -> None:
        self._run.log(numbers, step=step)

    def result(self, numbers: dict[str, float], step: int) -> None:
        self._run.summary.update(numbers)

    def close(self, exit_code: int) -> None:
        self._run.finish(exit_code)


_WRITERS = {"mlflow": _MLflow, "wandb": _WandB}
