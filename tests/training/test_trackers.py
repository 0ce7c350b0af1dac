import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vitrail
from vitrail.config import settings_of
from vitrail.errors import ConfigError, Interrupted
from vitrail.training.trackers import check_tracker, tracked

ENVIRONMENT = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ALLOW_FILE_STORE")
RUN = {"model.embed_dim": 16, "model.depth": 1, "training.log_steps": 10, "evaluation.report": False}


@pytest.fixture(autouse=True)
def _nothing_is_set_up(monkeypatch):
    for name in (*ENVIRONMENT, *(key for key in os.environ if key.startswith("WANDB_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture(scope="module", autouse=True)
def _end_the_service():
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def train(small, path, tracker, report=None, result=None, settings=None):
    """A training of 15 steps in `path`, as a session runs it."""
    training = small.start(path, {"training.tracker": tracker, "training.log_steps": 1} | (settings or {}))
    with tracked(training.run_directory, training.config) as training.tracker:
        training.run(report or small.silent)
        if result is not None:
            training.tracker.result(result)
    return training


def mlflow_run(path):
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient((path / "mlruns").as_uri())
        experiment = client.get_experiment_by_name("vitrail")
        (run,) = client.search_runs([experiment.experiment_id])
        points = {
            key: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
    return run, points


def wandb_records(path):
    """The records of the files that `wandb sync` sends, those of one start in the order they were written."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # waits for the service, which may still be writing when a run has finished
    records = []
    for file in path.glob("wandb/offline-run-*/run-*.wandb"):
        data, place, parts = file.read_bytes(), 7, b""
        while place + 7 <= len(data):  # LevelDB's format: pieces in blocks of 32 KiB, each with checksum, size and kind
            if (room := 32768 - place % 32768) < 7:
                place += room
                continue
            size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
            parts += data[place + 7 : place + 7 + size]
            place += 7 + size
            if kind in (1, 4):
                records.append(wandb_internal_pb2.Record.FromString(parts))
                parts = b""
    return records


def items(entries):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in entries}


def wandb_points(records):
    points = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            values = items(record.history.item)
            for key in values:
                if not key.startswith("_"):
                    points.setdefault(key, []).append((values["_step"], values[key]))
    return {key: sorted(found) for key, found in points.items()}


def logged(path):
    """What metrics.jsonl holds, as points of each key."""
    points = {}
    for line in map(json.loads, (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        if "step" in line:
            numbers, step = {key: line[key] for key in line if key != "step"}, line["step"]
        else:
            numbers, step = {f"validation_{key}": line[key] for key in ("accuracy", "loss")}, 5 * line["epoch"]
        for key, value in numbers.items():
            points.setdefault(key, []).append((step, value))
    return points


def points_of(tracker, path):
    return mlflow_run(path)[1] if tracker == "mlflow" else wandb_points(wandb_records(path))


RESULT = {
    "run": "runs/x",
    "stopped": "done",
    "train_seconds": 1.5,
    "test": {"accuracy": 0.5, "accuracy_ci95": [0.25, 0.75], "per_class": [{"class": "a", "f1": 1.0}], "ece": None},
}
NUMBERS = {
    "result/train_seconds": 1.5,
    "result/test/accuracy": 0.5,
    "result/test/accuracy_ci95_low": 0.25,
    "result/test/accuracy_ci95_high": 0.75,
}


def test_mlflow_gets_settings_metrics_and_result(small, tmp_path):
    path = tmp_path / "Läufe 50% #1"
    training = train(small, path, "mlflow", result=RESULT)
    run, points = mlflow_run(path)
    settings = {setting.key: str(setting.value) for setting in settings_of(training.config)}
    assert run.data.params == settings
    assert (run.info.run_name, run.info.status, run.info.user_id) == ("Läufe 50% #1", "FINISHED", "unknown")
    assert {key: value for key, value in points.items() if key.startswith("result/")} == {
        key: [(15, value)] for key, value in NUMBERS.items()
    }
    assert {key: value for key, value in points.items() if not key.startswith("result/")} == logged(path)
    assert "MLFLOW_ALLOW_FILE_STORE" not in os.environ


def test_wandb_gets_settings_metrics_and_result(small, tmp_path):
    path = tmp_path / "Läufe 50% #1"
    training = train(small, path, "wandb", result=RESULT)
    records = wandb_records(path)
    updates = [record.config.update for record in records if record.WhichOneof("record_type") == "config"]
    settings = {setting.key: setting.value for setting in settings_of(training.config)}
    assert items(updates[0]) == json.loads(json.dumps(settings))
    assert wandb_points(records) == logged(path)
    summary = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            summary |= items(record.summary.update)
    assert {key: value for key, value in summary.items() if key.startswith("result/")} == NUMBERS
    assert summary["validation_accuracy"] == logged(path)["validation_accuracy"][-1][1]
    (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name) == ("vitrail", path.name)


def test_wandb_is_told_nothing_of_the_machine(small, tmp_path):
    train(small, tmp_path / "run", "wandb")
    kinds = {record.WhichOneof("record_type") for record in wandb_records(tmp_path / "run")}
    assert kinds <= {"header", "run", "config", "summary", "history", "telemetry", "exit", "final", "footer"}
    told = b"".join(record.SerializeToString() for record in wandb_records(tmp_path / "run"))
    for secret in (str(tmp_path), sys.executable, os.path.abspath(sys.argv[0])):
        assert secret.encode() not in told
    assert {record.run.host for record in wandb_records(tmp_path / "run") if record.HasField("run")} == {"vitrail"}
    sent = {file.name for file in (tmp_path / "run").glob("wandb/offline-run-*/files/**/*")}
    assert sent <= {"config.yaml", "wandb-summary.json"}


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_resumed_run_goes_on_without_double_points(small, tmp_path, tracker):
    path = tmp_path / "run"
    settings = {"training.checkpoint_seconds": 1e9}

    class Crash(Exception):
        pass

    def crash(progress):
        if progress.step == 8:  # three steps after the last checkpoint
            raise Crash

    with pytest.raises(Crash, match=r"^$"):
        train(small, path, tracker, crash, settings=settings)
    first = json.loads((path / "tracker.json").read_text(encoding="utf-8"))
    assert (first["tracker"], first["step"]) == (tracker, 0)
    with pytest.raises(Interrupted, match="after step 6 of 15"):  # two of those three are not done again yet
        train(small, path, tracker, small.stop_after(6), settings=settings)
    if tracker == "mlflow":
        assert mlflow_run(path)[0].info.status == "KILLED"
    train(small, path, tracker, result=RESULT, settings=settings)
    last = json.loads((path / "tracker.json").read_text(encoding="utf-8"))
    assert (last["id"], last["step"], last["epoch"]) == (first["id"], 7, 1)
    points, expected = points_of(tracker, path), logged(path)
    for key in ("loss", "learning_rate", "validation_loss", "validation_accuracy"):
        assert points[key] == expected[key]
    if tracker == "mlflow":
        run, _ = mlflow_run(path)
        assert run.info.status == "FINISHED"
        assert points["result/test/accuracy"] == [(15, 0.5)]
    else:
        ids = {record.run.run_id for record in wandb_records(path) if record.WhichOneof("record_type") == "run"}
        assert ids == {first["id"]}


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_tracker_does_not_change_the_weights(small, tmp_path, tracker):
    plain = small.train()
    followed = train(small, tmp_path / "followed", tracker, settings={"training.log_steps": 2})
    assert small.outcome(followed) == small.outcome(plain)


@pytest.mark.parametrize(
    ("tracker", "name", "value"),
    [("mlflow", "MLFLOW_TRACKING_URI", "nowhere://x"), ("wandb", "WANDB_MODE", "sideways")],
)
def test_the_environment_is_obeyed_and_a_failure_is_said_once(
    small, tmp_path, monkeypatch, caplog, tracker, name, value
):
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, "vitrail"):
        training = train(small, tmp_path / "run", tracker, result=RESULT)
    assert training.state.counters.step == 15
    (record,) = (record for record in caplog.records if record.name.startswith("vitrail"))
    assert re.fullmatch(
        rf"training\.tracker={tracker} takes nothing more \(.+\); training goes on, metrics\.jsonl has it all",
        record.getMessage(),
    )
    assert not (tmp_path / "run" / "tracker.json").exists()


def test_a_store_that_breaks_on_the_way_is_said_once(small, tmp_path, caplog):
    def take_away(progress):
        if progress.step == 3:
            for meta in (tmp_path / "run").glob("mlruns/*/*/meta.yaml"):
                meta.unlink()

    training = train(small, tmp_path / "run", "mlflow", take_away)
    assert training.state.counters.epoch == 3
    assert caplog.text.count("takes nothing more") == 1


def test_a_torn_tracker_json_is_said_and_does_no_harm(small, tmp_path, caplog):
    train(small, tmp_path / "run", "mlflow", settings={"training.epochs": 1})
    (tmp_path / "run" / "tracker.json").write_text('{"tracker": "ml', encoding="utf-8")
    train(small, tmp_path / "run", "mlflow", settings={"training.epochs": 1})
    assert caplog.text.count("takes nothing more") == 1


def test_mlflow_goes_where_the_environment_says(small, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere" / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "vitrail")
    train(small, tmp_path / "run", "mlflow", settings={"training.epochs": 1})
    assert not (tmp_path / "run" / "mlruns").exists()
    assert len(mlflow_run(tmp_path / "elsewhere")[1]["loss"]) == 5


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_without_the_library_the_command_that_installs_it_is_said(tmp_path, monkeypatch, tracker):
    monkeypatch.setitem(sys.modules, tracker, None)
    sentence = (
        f"training.tracker='{tracker}' needs a library that is not installed; "
        f"install it with: pip install 'vitrail[{tracker}]'"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        vitrail.train("digits", settings=RUN | {"training.tracker": tracker}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_called_like_the_library_is_not_the_library(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    real = importlib.util.find_spec
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert real("wandb") is not None
    with pytest.raises(ConfigError, match="is not installed"):
        check_tracker("wandb")


def test_no_tracker_needs_no_library_and_leaves_nothing(small, tmp_path):
    check_tracker("none")
    training = train(small, tmp_path / "run", "none")
    assert training.tracker is None
    assert {path.name for path in (tmp_path / "run").iterdir()} & {"tracker.json", "mlruns", "wandb"} == set()


@pytest.mark.usefixtures("unrendered")
def test_a_whole_run_is_followed(tmp_path):
    run = vitrail.train("digits", epochs=1, settings=RUN | {"training.tracker": "mlflow"}, out=tmp_path / "run")
    _, points = mlflow_run(tmp_path / "run")
    assert points["result/test/accuracy"][0][1] == run.result["test"]["accuracy"]
    assert points["result/epochs"] == [(points["validation_loss"][0][0], 1)]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, signal.SIGINT, signal.SIGKILL])
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are listed by /proc")
def test_wandb_leaves_no_process(tmp_path, stop):
    program = f"""
import os, signal, vitrail
def report(progress):
    if progress.evaluation is not None and {stop is not None}:
        os.kill(os.getpid(), {int(stop or 0)})
settings = {RUN | {"training.tracker": "wandb"}}
vitrail.train("digits", epochs=2, settings=settings, out={str(tmp_path / "run")!r}, report=report)
"""
    environment = os.environ | {"VITRAIL_TEST": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == {None: 0, signal.SIGINT: 1, signal.SIGKILL: -9}[stop], done.stderr
    for _ in range(100):  # one whose parent was killed notices that by and by
        if not processes_with(f"VITRAIL_TEST={tmp_path}"):
            break
        time.sleep(0.1)
    assert processes_with(f"VITRAIL_TEST={tmp_path}") == []


def processes_with(variable):
    """The processes that have a variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if variable.encode() in path.read_bytes():
                found.append(path)
    return found
