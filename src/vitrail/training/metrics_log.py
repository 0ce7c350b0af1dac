"""metrics.jsonl and, beside it, the same numbers as TensorBoard events and for a tracker, if one is asked for."""

# The classes of protobuf modules are made when they are imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from vitrail.checkpoint import write_atomically
from vitrail.errors import CheckpointError
from vitrail.runs import read_json_lines
from vitrail.training.trackers import Tracker


class MetricsLog:
    """Appends to metrics.jsonl and a TensorBoard event file in the run's directory."""

    def __init__(self, path: Path, step: int, epoch: int, tracker: Tracker | None = None) -> None:
        """Open the log of a run that is at `step`, `epoch` epochs done; what was logged beyond is taken out.

        Raises CheckpointError if the disk refuses, as all methods do but `close`.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self.path, self._tracker = path, tracker
        lines = list(read_json_lines(path))
        if tracker is not None:
            tracker.resume(lines)
        kept = [line for line in lines if not _is_beyond(line, step, epoch)]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        with _naming(path):
            self._file = path.open("a", encoding="utf-8")
        # Not tensorboard's own EventFileWriter: it writes in a thread, where a full disk ends in a traceback, and calls
        # the file after the machine. The time sorts the files of a run's starts.
        self._events_path = path.with_name(f"events.out.tfevents.{time.time_ns()}")
        with _naming(self._events_path):
            self._events_file = self._events_path.open("wb")
        try:
            self._write_event(0, file_version="brain.Event:2")
            # Tells TensorBoard to drop what an earlier, interrupted start wrote from the next step on.
            self._write_event(step + 1, session_log=SessionLog(status=SessionLog.START))
        except CheckpointError:
            self.close()
            raise

    def training(self, line: dict[str, Any]) -> None:
        """Log one object of training: step, epoch, images_seen, loss, learning_rate, seconds, perhaps accuracy."""
        self._write(
            line, line["step"], {key: line[key] for key in ("loss", "accuracy", "learning_rate") if key in line}
        )
        if self._tracker is not None:
            self._tracker.training(line)

    def evaluation(self, line: dict[str, Any], step: int) -> None:
        """Log one object of evaluation: split, epoch, accuracy, loss, perhaps another that the best is chosen by."""
        self._write(line, step, {f"{line['split']}_{key}": line[key] for key in line if key not in ("split", "epoch")})
        if self._tracker is not None:
            self._tracker.evaluation(line, step)

    def _write(self, line: dict[str, Any], step: int, scalars: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        with _naming(self.path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write_event(step, summary=Summary(value=values))

    def _write_event(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with _naming(self._events_path):
            event = Event(wall_time=time.time(), step=step, **content)
            RecordWriter(self._events_file).write(event.SerializeToString())
            self._events_file.flush()

    def sync(self) -> None:
        """Make all that was logged durable, before a checkpoint that counts on it."""
        with _naming(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close both files. Every line is on its way already; only one that the disk refused could be refused again."""
        for file in (self._file, self._events_file):
            with contextlib.suppress(OSError):
                file.close()


@contextlib.contextmanager
def _naming(path: Path) -> Generator[None]:
    """Turn what the system says into CheckpointError that names the file."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error.strerror or error}") from error


def _is_beyond(line: dict[str, Any], step: int, epoch: int) -> bool:
    return line["step"] > step if "step" in line else line.get("epoch", 0) > epoch
