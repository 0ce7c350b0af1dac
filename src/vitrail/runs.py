"""Run directories: their files, their journal, their numbering."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.errors import CheckpointError, ConfigError, suggest

if TYPE_CHECKING:  # torch hangs on it and on checkpoint, and `vitrail runs` must not wait two seconds for that
    from vitrail.config import RunConfig

RUNS = Path("runs")
_DECISIONS = frozenset({"plan", "compile", "early_stop"})  # events of a journal that change what is computed


class Journal:
    """What the clock or the machine decided, one JSON object a line, on disk before it takes effect.

    A line torn by a crash never took effect and is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **facts: Any) -> None:
        """Append one event, durably. Raises CheckpointError if the disk refuses."""
        line = json.dumps({"event": event, **facts}) + "\n"
        try:
            with self.path.open("ab") as file:
                if file.tell() and not self._ends_with_newline():
                    line = "\n" + line  # after a torn line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be written: {error.strerror or error}") from error

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first; none if there is no journal yet."""
        return list(read_json_lines(self.path))

    def last(self, event: str) -> dict[str, Any] | None:
        """The newest event of that name."""
        return next((entry for entry in reversed(self.events()) if entry.get("event") == event), None)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file; lines torn by a crash are passed over, a missing file has none."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(content, dict):
            yield content


class RunDirectory:
    """The paths of one run and what its files say; opening one reads nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.splits_path = self.path / "splits.json"
        self.corrections_path = self.path / "corrections.csv"
        self.audit_path = self.path / "audit.json"
        self.environment_path = self.path / "environment.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoints_path = self.path / "checkpoints"
        self.figures_path = self.path / "figures"
        self.predictions_path = self.path / "predictions"
        self.journal = Journal(self.path / "journal.jsonl")

    def exists(self) -> bool:
        """Whether this is a run at all: whether it holds a config.json."""
        return self.config_path.is_file()

    def config(self) -> RunConfig:
        """The run's config. Raises ConfigError if it is damaged, CheckpointError if it cannot be read."""
        from vitrail.config import config_from_json

        try:
            return config_from_json(self.config_path.read_text(encoding="utf-8"), str(self.config_path))
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.config_path} could not be read: {error}") from error

    def result(self) -> dict[str, Any] | None:
        """The JSON object that `vitrail train` printed, or None if the run has not finished."""
        finished = self.journal.last("finished")
        return None if finished is None else finished["result"]

    def resume_command(self) -> str:
        """The command that continues the run, ready for a shell."""
        return f"vitrail train --resume --out {shlex.quote(str(self.path))}"

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes from training this run meanwhile. Raises ConfigError if one does so already."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise ConfigError(
                f"{self.path} is being trained by another process; wait for it, or stop it first"
            ) from None

    def in_training(self) -> bool:
        """Whether a process trains this run now; where its lock cannot be opened, as on a read-only disk, it does not.

        A run that has never been locked is not touched. The lock is held for some microseconds if it is free.
        """
        path = self.path / ".lock"
        if not path.is_file():
            return False
        from filelock import FileLock, Timeout

        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def check_unused(self) -> None:
        """Raise ConfigError unless a new run can be made here: nothing is in the way."""
        if self.path.is_file():
            raise ConfigError(f"{self.path} is a file; give --out a folder for the run")
        if self.exists():
            raise ConfigError(f"{self.path} already holds a run; continue it with --resume, or give another --out")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and holds no run; give --out a new folder")

    def create(self, config: str, splits: str, corrections: str | None = None, audit: str | None = None) -> None:
        """Make the directories and write config.json, splits.json, corrections.csv and audit.json, given as text.

        Raises ConfigError if the folder is in use, CheckpointError if it cannot be made or written to.
        """
        from vitrail.checkpoint import write_atomically

        self.check_unused()
        try:
            for folder in (self.path, self.checkpoints_path, self.figures_path, self.predictions_path):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be made: {error.strerror or error}") from error
        for path, text in ((self.corrections_path, corrections), (self.audit_path, audit), (self.splits_path, splits)):
            if text is not None:
                write_atomically(path, text)
        write_atomically(self.config_path, config)  # last: it makes the folder a run
        self._date_after_others()

    def _date_after_others(self) -> None:
        """Make this the newest run also where the clock was set back since the one before."""
        own = self.config_path.stat().st_mtime_ns
        others = [path for path in self.path.parent.glob("*/config.json") if path != self.config_path]
        newest = max((path.stat().st_mtime_ns for path in others), default=0)
        if own <= newest:
            os.utime(self.config_path, ns=(newest + 1_000_000, newest + 1_000_000))


def new_run(data: str, recipe: str) -> RunDirectory:
    """The next free runs/<data>-<recipe>-<number>, reserved by making it, so that two commands never share one.

    Raises CheckpointError if it cannot be made.
    """
    stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', data)}-{recipe}"
    number = 1 + max((n for n in map(_number, _runs_named(stem)) if n is not None), default=0)
    path = RUNS
    try:
        RUNS.mkdir(exist_ok=True)
        while True:
            path = RUNS / f"{stem}-{number}"
            with contextlib.suppress(FileExistsError):  # made by another command just now
                path.mkdir()
                return RunDirectory(path)
            number += 1
    except OSError as error:
        raise CheckpointError(f"{path} could not be made: {error.strerror or error}; give --out") from error


def _runs_named(stem: str) -> list[str]:
    return [path.name for path in RUNS.glob(f"{stem}-*")] if RUNS.is_dir() else []


def _number(name: str) -> int | None:
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else None


def all_runs() -> list[RunDirectory]:
    """The runs below runs/ in the current directory, oldest first."""
    paths = [path.parent for path in RUNS.glob("*/config.json")]
    return [RunDirectory(path) for path in sorted(paths, key=lambda path: (path / "config.json").stat().st_mtime_ns)]


def find_run(name: str | Path) -> RunDirectory:
    """The run called `name`: a directory, a bare name below runs/, or "last" for the newest finished run there.

    A directory here wins over one of the same name below runs/. Raises ConfigError if there is none, naming the
    nearest.
    """
    if str(name) == "last":
        finished = [run for run in all_runs() if run.result() is not None]
        if not finished:
            raise ConfigError("There is no finished run below runs/ here; `vitrail train` makes one")
        return finished[-1]
    run = RunDirectory(name)
    if run.exists():
        return run
    bare = run.path.name == str(name) != ".."
    if bare and (below := RunDirectory(RUNS / name)).exists():
        return below
    if run.path.is_dir():
        raise ConfigError(f"{name} is not a run: it holds no config.json; `vitrail train` makes runs below runs/")
    near = suggest(str(name), [known.path.name if bare else str(known.path) for known in all_runs()])
    raise ConfigError(f"No run at {name}.{near} Give a run's directory, or `last` for the newest finished one")


def copy_decisions(source: RunDirectory, target: RunDirectory) -> None:
    """Let `target`, a run not begun yet, repeat `source`, which is finished: its journal gets what was decided there.

    `repeats` says so, and what was computed with; then no plan is made anew.
    """
    known: list[dict[str, Any]] = []
    for event in source.journal.events():
        if event.get("event") in _DECISIONS and event not in known:
            known.append(event)
            target.journal.write(**event)
    began = source.journal.last("start")
    assert began is not None
    target.journal.write("repeats", run=source.path.name, bfloat16=began["bfloat16"], threads=began["threads"])


def newest_unfinished() -> RunDirectory:
    """The newest run below runs/ that has not finished. Raises ConfigError if there is none."""
    for run in reversed(all_runs()):
        if run.result() is None:
            return run
    raise ConfigError("There is no unfinished run below runs/ here to resume; give its directory with --out")
