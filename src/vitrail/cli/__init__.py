"""The command line: one file a command, each of which parses, calls one function of api, and prints."""

from __future__ import annotations

import sys
import time
from typing import Any, cast

_STARTED = time.perf_counter()  # a command's wall time begins here, before anything heavy is imported


def main() -> None:
    """Run the command line; the exit code is 0 done, 1 failed, 2 wrong usage, 130 or 143 interrupted."""
    import io
    import signal

    from vitrail.cli.log import log_to_stderr

    signal.signal(signal.SIGTERM, _leave)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that a pipe's encoding lacks must not end in a traceback
        sys.stdout.reconfigure(errors="backslashreplace")
    log_to_stderr()
    sys.exit(run_command(sys.argv[1:]))


def _leave(signal_number: int, frame: object) -> None:
    sys.exit(128 + signal_number)


def run_command(arguments: list[str]) -> int:
    """Run one command, such as ["train", "digits"], and give its exit code; a user's mistake is one sentence."""
    import typer

    from vitrail.cli.commands import app
    from vitrail.errors import Interrupted, VitrailError

    # The base of all wrong usage; which module it lives in depends on typer's version.
    usage_error = cast(type[Exception], typer.BadParameter.__mro__[1])
    try:
        code: Any = app(arguments or ["--help"], prog_name="vitrail", standalone_mode=False)
    except usage_error as error:
        return _fail(_usage_sentence(error), 2, arguments)
    except Interrupted as error:
        return _fail(str(error), error.exit_code, arguments, prefix="")
    except VitrailError as error:
        return _fail(str(error), error.exit_code, arguments)
    except OSError as error:
        return _fail(f"{error.filename or 'A file'}: {error.strerror or error}", 1, arguments)
    except SystemExit as leaving:  # SIGTERM; or the reader of a pipe has seen enough
        code = leaving.code
    if code in (130, 143):  # before there was anything to save
        return _fail(f"Stopped by {'SIGINT' if code == 130 else 'SIGTERM'}", code, arguments, prefix="")
    return code or 0 if arguments else 2


def _usage_sentence(error: Any) -> str:
    """What was wrong with the command's options and arguments, and where to read what is right."""
    message = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx else "vitrail"
    return f"{message}{'' if message.endswith('?') else ';'} `{command} --help` shows its usage"


def _fail(message: str, exit_code: int, arguments: list[str], prefix: str = "error: ") -> int:
    """Say what went wrong on stderr; with --json also as the one object on stdout."""
    import json

    sys.stderr.write(f"{prefix}{message}\n")
    if "--json" in arguments:
        sys.stdout.write(json.dumps({"error": message, "exit_code": exit_code}) + "\n")
    return exit_code


def command_started() -> float:
    """time.perf_counter() at the command's start."""
    return _STARTED
