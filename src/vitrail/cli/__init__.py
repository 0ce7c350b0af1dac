"""The command line: one file a command, each of which parses, calls one function of api, and prints."""

from __future__ import annotations

import sys
import time

_STARTED = time.perf_counter()  # a command's wall time begins here, before anything heavy is imported


def main() -> None:
    """Run the command line; the exit code is 0 done, 1 failed, 2 wrong usage, 130 or 143 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command, such as ["train", "digits"], and give its exit code; a user's mistake is one sentence."""
    from vitrail.cli.commands import app
    from vitrail.errors import VitrailError

    try:
        app(arguments, prog_name="vitrail")
    except SystemExit as leaving:  # how typer ends every command, and says what was wrong with its options
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return _fail("", code, arguments) if code == 2 else code
    except VitrailError as error:
        return _fail(str(error), error.exit_code, arguments)
    except OSError as error:
        return _fail(f"{error.filename or 'A file'}: {error.strerror or error}", 1, arguments)
    return 0


def _fail(message: str, exit_code: int, arguments: list[str]) -> int:
    """Say what went wrong on stderr, unless it was said; with --json also as the one object on stdout."""
    import json

    if message:
        sys.stderr.write(f"error: {message}\n")
    if "--json" in arguments:
        sys.stdout.write(json.dumps({"error": message or "wrong usage", "exit_code": exit_code}) + "\n")
    return exit_code


def command_started() -> float:
    """time.perf_counter() at the command's start."""
    return _STARTED
