"""Help, wrong usage, and the habits that all commands have."""

import os
import signal
import subprocess
import sys

import pytest

from vitrail import cli
from vitrail.cli.commands import app
from vitrail.errors import DataError

COMMANDS = ["train", "evaluate", "predict", "explain", "inspect", "report", "embed", "probe", "export", "push"]
COMMANDS += ["audit", "recipes", "models", "datasets", "cache", "runs"]


def test_help_lists_the_commands(vitrail):
    done = vitrail("--help")
    assert (done.code, done.err) == (0, "")
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    for command in COMMANDS:
        assert lines[command].endswith(".")
        assert not lines[command].endswith("...")  # not cut


def test_no_command_shows_the_help(vitrail):
    done = vitrail()
    assert (done.code, done.out, done.err) == (2, vitrail("--help").out, "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(vitrail, command, option):
    done = vitrail(command, option)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: vitrail {command} [OPTIONS]")
    assert "--json" in done.out


def test_every_command_is_tested_here():
    registered = [*app.registered_commands, *app.registered_groups]
    assert [command.name for command in registered] == COMMANDS


def test_the_version(vitrail):
    from vitrail import __version__

    done = vitrail("--version")
    assert (done.code, done.out) == (0, f"vitrail {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["evalute"], "No such command 'evalute'. Did you mean 'evaluate'? `vitrail --help` shows its usage"),
        (["frobnicate"], "No such command 'frobnicate'; `vitrail --help` shows its usage"),
        (["predict"], "Missing argument 'RUN'; `vitrail predict --help` shows its usage"),
        (["predict", "last"], "Missing argument 'IMAGE'; `vitrail predict --help` shows its usage"),
        (["evaluate"], "Missing argument 'RUN'; `vitrail evaluate --help` shows its usage"),
        (["recipes", "a", "b"], "`vitrail recipes --help` shows its usage"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--epochs", "three"], "--epochs"),
        (["train", "--epochs"], "--epochs"),
    ],
)
def test_wrong_usage_is_one_sentence(vitrail, arguments, shown):
    done = vitrail(*arguments)
    assert (done.code, done.out) == (2, "")
    assert shown in done.error
    done = vitrail(*arguments, "--json") if arguments[-1] != "--epochs" else vitrail("train", "--json", "--epochs")
    assert done.code == 2
    assert done.json == {"error": done.error, "exit_code": 2}


def failing(error: BaseException):
    def command(*arguments: object, **options: object) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (DataError("no good"), 1, "error: no good"),
        (PermissionError(13, "Permission denied", "runs/x"), 1, "error: runs/x: Permission denied"),
        (OSError("odd"), 1, "error: A file: odd"),
        (KeyboardInterrupt(), 130, "Stopped by SIGINT"),
        (SystemExit(143), 143, "Stopped by SIGTERM"),
    ],
)
def test_whatever_stops_a_command_is_one_line(vitrail, monkeypatch, error, code, shown):
    monkeypatch.setattr("vitrail.api.evaluate", failing(error))
    done = vitrail("evaluate", "last", "--json")
    assert (done.code, done.err) == (code, shown + "\n")
    assert done.json == {"error": shown.removeprefix("error: "), "exit_code": code}


def test_our_own_mistakes_are_not_hidden(vitrail, monkeypatch):
    monkeypatch.setattr("vitrail.api.evaluate", failing(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError, match="ours"):
        vitrail("evaluate", "last")


def test_main_ends_with_the_exit_code(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["vitrail", "recipes", "digts"])
    try:
        with pytest.raises(SystemExit) as leaving:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert leaving.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: No recipe named 'digts'. Did you mean 'digits'? `vitrail recipes` lists them\n"
    )


def loaded(*arguments: str) -> set[str]:
    """The heavy modules in memory after a command in a new process."""
    code = f"""
import sys
from vitrail.cli import run_command
code = run_command({list(arguments)})
heavy = {{"torch", "torchvision", "timm", "sklearn", "scipy", "matplotlib", "datasets", "pandas", "pyarrow", "PIL"}}
print(code, *heavy & {{name.split(".")[0] for name in sys.modules}}, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stderr.startswith("0"), done.stderr
    return {*done.stderr.split()[1:]}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["--version"], ["datasets"], ["runs", "--json"]]
)
def test_help_loads_nothing_heavy(arguments):
    assert loaded(*arguments) <= {"PIL"} - {"PIL" if arguments != ["datasets"] else ""}


def test_the_reader_of_a_pipe_may_leave(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "from vitrail.cli import main; main()", "datasets"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, encoding="utf-8", cwd=tmp_path)
    os.close(write)
    assert "Traceback" not in done.stderr
