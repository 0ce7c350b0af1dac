import json
import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vitrail.errors import CheckpointError
from vitrail.training.metrics_log import MetricsLog

STEPS = {"step": 2, "epoch": 0.4, "images_seen": 16, "loss": 1.25, "accuracy": 0.5, "learning_rate": 1e-3, "seconds": 1}
EVALUATION = {"split": "validation", "epoch": 1, "accuracy": 0.75, "loss": 0.5}


def exactly(sentence):
    """A pattern that only this sentence matches."""
    return f"^{re.escape(sentence)}$"


def events(folder):
    """The scalars of a run as TensorBoard shows them: {tag: [(step, value), ...]}."""
    accumulator = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def step_line(step, epoch=0.5):
    return STEPS | {"step": step, "epoch": epoch}


def test_lines_are_readable_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0, 0)
    log.training(STEPS)
    assert lines(path) == [STEPS]
    log.evaluation(EVALUATION, 5)
    log.sync()
    assert lines(path) == [STEPS, EVALUATION]
    log.close()


def test_events_hold_the_same_numbers(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, 0)
    log.training(STEPS)
    log.training({key: value for key, value in step_line(4).items() if key != "accuracy"})
    log.evaluation(EVALUATION, 5)
    log.close()
    assert events(tmp_path) == {
        "loss": [(2, 1.25), (4, 1.25)],
        "accuracy": [(2, 0.5)],
        "learning_rate": [(2, pytest.approx(1e-3)), (4, pytest.approx(1e-3))],
        "validation_loss": [(5, 0.5)],
        "validation_accuracy": [(5, 0.75)],
    }


def test_events_of_a_training_are_its_metrics(small):
    training = small.train()
    found = events(training.run_directory.path)
    logged = small.metrics(training.run_directory.path)
    for key in ("loss", "accuracy", "learning_rate"):
        expected = [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in logged if "step" in line]
        assert found[key] == expected
    for key in ("loss", "accuracy"):
        expected = [(5 * line["epoch"], pytest.approx(line[key], rel=1e-6)) for line in logged if "split" in line]
        assert found[f"validation_{key}"] == expected


def test_what_lies_beyond_the_step_is_taken_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0, 0)
    for line in (step_line(2), step_line(4, 0.8), step_line(6, 1.2)):
        log.training(line)
    log.evaluation(EVALUATION, 5)
    log.evaluation(EVALUATION | {"epoch": 2}, 10)
    log.close()
    log = MetricsLog(path, 5, 1)
    assert lines(path) == [step_line(2), step_line(4, 0.8), EVALUATION]
    log.training(step_line(6, 1.3) | {"loss": 7.0})
    log.close()
    assert lines(path)[3:] == [step_line(6, 1.3) | {"loss": 7.0}]
    assert events(tmp_path)["loss"] == [(2, 1.25), (4, 1.25), (6, 7.0)]


def test_an_epochs_evaluation_goes_while_its_steps_stay(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0, 0)
    log.training(step_line(5, 1.0))
    log.evaluation(EVALUATION, 5)
    log.close()
    MetricsLog(path, 5, 0).close()  # stopped after the last step, before the evaluation
    assert lines(path) == [step_line(5, 1.0)]


def test_a_torn_last_line_is_taken_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(STEPS) + '\n{"step": 4, "los', encoding="utf-8")
    log = MetricsLog(path, 4, 0)
    log.training(step_line(6))
    log.close()
    assert lines(path) == [STEPS, step_line(6)]


def test_a_full_disk_is_one_sentence(tmp_path, files_of_at_most):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0, 0)
    log.training(STEPS)
    size = path.stat().st_size
    with files_of_at_most(size + 10):
        with pytest.raises(CheckpointError, match=exactly(f"{path} could not be written: File too large")):
            log.training(step_line(4))
        log.close()
    log = MetricsLog(path, 4, 0)  # the torn line is gone
    log.close()
    assert lines(path) == [STEPS]


def test_a_disk_too_full_for_events_is_one_sentence(tmp_path, files_of_at_most):
    path = tmp_path / "metrics.jsonl"
    with (
        files_of_at_most(10),
        pytest.raises(CheckpointError, match=r"events\.out\.tfevents\.\d+ could not be written: File too large$"),
    ):
        MetricsLog(path, 0, 0)


def test_event_files_sort_by_their_start_and_do_not_tell_the_machine(tmp_path):
    for _ in range(3):
        MetricsLog(tmp_path / "metrics.jsonl", 0, 0).close()
    names = [path.name for path in sorted(tmp_path.glob("events.out.tfevents.*"))]
    assert len(names) == 3
    assert all(re.fullmatch(r"events\.out\.tfevents\.\d{19}", name) for name in names)


def test_a_folder_in_the_way_is_one_sentence(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.mkdir()
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))} could not be written: .+"):
        MetricsLog(path, 0, 0)
