"""The command line within this process, which is a hundred times faster than a new one."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vitrail import api
from vitrail.cli import run_command


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1
        content = json.loads(self.out)
        assert isinstance(content, dict)
        return content

    @property
    def error(self) -> str:
        """The one sentence on stderr, but for what was foretold if there was work before it."""
        *foretold, sentence = self.err.splitlines(keepends=True)
        assert all(" steps in " in line and ", expected to end in about " in line for line in foretold)
        assert len(foretold) <= 1
        assert sentence.startswith("error: ")
        assert sentence.endswith("\n")
        return sentence.removeprefix("error: ").strip()


Vitrail = Callable[..., Done]


@pytest.fixture
def vitrail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> Vitrail:
    """`vitrail("train", "digits", ...)` in an empty folder; never a traceback, a colour or a line drawn twice."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        done = Done(code, *capsys.readouterr())
        assert "Traceback" not in done.err
        assert not {"\x1b", "\r"} & {*done.out, *done.err}
        return done

    return run


@pytest.fixture
def small(write_idx: Callable[..., Path], tiny: dict[str, Any]) -> Callable[..., list[str]]:
    """`small(folder)`: DATA and options of a training on it that takes a fraction of a second."""

    def arguments(folder: str | Path, epochs: int = 2) -> list[str]:
        if not Path(folder).exists():
            write_idx(Path(folder))
        settings = [f"--set={key}={value}" for key, value in tiny.items()]
        return [str(folder), f"--epochs={epochs}", *settings]

    return arguments


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, write_idx: Callable[..., Path], tiny: dict[str, Any]) -> Path:
    """A folder with `photos` and a finished `run` on them."""
    folder = tmp_path_factory.mktemp("trained")
    write_idx(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("vitrail.reporting.run_figures.NUM_SHOWN", 3)
        api.train("photos", epochs=2, settings=tiny, out="run")
    return folder


@pytest.fixture
def run(vitrail: Vitrail, trained: Path) -> Path:
    """./run, a finished run on ./photos, to change at will."""
    shutil.copytree(trained, ".", dirs_exist_ok=True)
    return Path("run")


@pytest.fixture
def interrupted() -> Callable[[int], AbstractContextManager[None]]:
    """`with interrupted(number):` a training that gets that signal in its second step."""

    @contextmanager
    def armed(number: int) -> Generator[None]:
        @contextmanager
        def shown() -> Generator[Callable[[Any], None]]:
            yield lambda progress: signal.raise_signal(number) if progress.step == 2 else None

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vitrail.training.loop.REPORT_SECONDS", -1.0)
            patch.setattr("vitrail.cli.progress.shown_progress", shown)
            yield

    return armed
