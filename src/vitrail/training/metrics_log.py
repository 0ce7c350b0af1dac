"""metrics.jsonl and, beside it, the same numbers as TensorBoard events."""

# The classes of protobuf modules are made when they are imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from vitrail.checkpoint import write_atomically
from vitrail.errors import CheckpointError
from vitrail.runs import read_json_lines


class MetricsLog:
    """Appends to metrics.jsonl and a TensorBoard event file in the run's directory."""

    def __init__(self, path: Path, step: int, epoch: int) -> None:
        """Open the log of a run that is at `step`, `epoch` epochs done; what was logged beyond is taken out."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.path = path
        kept = [line for line in read_json_lines(path) if not _is_beyond(line, step, epoch)]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")
        self._events = EventFileWriter(str(path.parent))
        # Tells TensorBoard to drop what an earlier, interrupted start wrote for later steps.
        start = SessionLog(status=SessionLog.START)
        self._events.add_event(Event(wall_time=time.time(), step=step, session_log=start))

    def training(self, line: dict[str, Any]) -> None:
        """Log one object of training: step, epoch, images_seen, loss, learning_rate, seconds, perhaps accuracy."""
        self._write(
            line, line["step"], {key: line[key] for key in ("loss", "accuracy", "learning_rate") if key in line}
        )

    def evaluation(self, line: dict[str, Any], step: int) -> None:
        """Log one object of evaluation: split, epoch, accuracy, loss."""
        self._write(line, step, {f"{line['split']}_{key}": line[key] for key in ("loss", "accuracy")})

    def _write(self, line: dict[str, Any], step: int, scalars: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be written: {error.strerror or error}") from error
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._events.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def sync(self) -> None:
        """Make all that was logged durable, before a checkpoint that counts on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is buffered and close both files."""
        self._file.close()
        self._events.close()


def _is_beyond(line: dict[str, Any], step: int, epoch: int) -> bool:
    return line["step"] > step if "step" in line else line.get("epoch", 0) > epoch
