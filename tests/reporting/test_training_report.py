import logging
from typing import Any

import numpy as np
import pytest

from vitrail.data.dataset import ImageSet
from vitrail.errors import Interrupted
from vitrail.reporting import run_report
from vitrail.reporting.training_report import (
    LEAST_INSPECTED,
    MOST_INSPECTED,
    REPORT_IMAGES,
    REPORT_SECONDS,
    report_training,
)

RESULT = {"images_seen": 100, "train_seconds": 1.0}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the writing of the report was asked for, in place of doing it."""
    calls: list[dict[str, Any]] = []

    def write(directory: Any, classifier: Any, images: Any, **how: Any) -> run_report.Report:
        calls.append({"images": images, **how})
        return run_report.Report(directory.path, "", directory.path, None, ())

    monkeypatch.setattr(run_report, "write_report", write)
    return calls


def many(count: int, side: int = 8) -> ImageSet:
    pixels = np.zeros((count, side, side, 1), np.uint8)
    return ImageSet(pixels, np.zeros(count, np.int64), tuple(map(str, range(count))))


def test_fast_models_are_inspected_with_many_images_and_slow_ones_with_few(
    made_run: Any, asked: list[dict[str, Any]]
) -> None:
    images = {"test": many(2000), "validation": many(50)}
    for seconds, expected in ((0.001, MOST_INSPECTED), (1000.0, LEAST_INSPECTED)):
        result = {"images_seen": 100, "train_seconds": seconds}
        report_training(made_run.directory, made_run.classifier, result, many(3000), images)
        inspected = asked[-1]["inspected"]
        assert {name: len(found) for name, found in inspected.items()} == {
            "train": expected, "test": expected, "validation": 50
        }  # fmt: skip
        assert asked[-1]["images"] == images
        reserved = REPORT_SECONDS / 2 / run_report.forward_seconds(result) + REPORT_IMAGES
        assert asked[-1]["passes"] + 2 * expected + 50 == pytest.approx(reserved)


def test_training_images_come_at_the_models_size(made_run: Any, asked: list[dict[str, Any]]) -> None:
    report_training(made_run.directory, made_run.classifier, RESULT, many(20, side=10), {"validation": many(5)})
    assert asked[0]["inspected"]["train"].pixels.shape == (20, 8, 8, 1)


@pytest.mark.parametrize("error", [RuntimeError("out of\nmemory"), KeyError("x"), MemoryError()])
def test_what_goes_wrong_is_one_sentence(
    made_run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fails(*told: object, **how: object) -> None:
        raise error

    monkeypatch.setattr(run_report, "write_report", fails)
    report_training(made_run.directory, made_run.classifier, RESULT, many(20), {"validation": many(5)})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("The report was not written (")
    assert record.message.endswith(f"; write it with: vitrail report {made_run.path}")
    assert "\n" not in record.message


def test_an_interrupt_says_that_the_run_has_finished(made_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*told: object, **how: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_report, "write_report", stopped)
    with pytest.raises(Interrupted, match=r"^Stopped by SIGINT; the run has finished, and lacks only its report; "):
        report_training(made_run.directory, made_run.classifier, RESULT, many(20), {"validation": many(5)})
