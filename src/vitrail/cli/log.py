"""What the library logs, as lines on stderr."""

from __future__ import annotations

import logging

from vitrail.cli.output import say


class _Lines(logging.Handler):
    """Writes to what sys.stderr is at the time: a progress bar stands in for it, and keeps lines off its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        say(record.getMessage())


def log_to_stderr() -> None:
    """Show what the library has to say, such as files passed over, as plain lines."""
    logger = logging.getLogger("vitrail")
    logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
