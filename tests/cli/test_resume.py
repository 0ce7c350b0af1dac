import json
import shutil
import signal
from pathlib import Path

import pytest


def weights(run: str) -> bytes:
    return Path(run, "model.safetensors").read_bytes()


def metrics(run: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def stopped(vitrail, small, interrupted):
    """`stopped("run")`: a run on ./photos that was stopped after two of its six steps."""

    def stop(name: str, number: int = signal.SIGINT) -> None:
        with interrupted(number):
            done = vitrail("train", *small("photos"), "--out", name)
        assert done.code == 128 + number

    return stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_as_if_never_stopped(vitrail, small, interrupted, number):
    undisturbed = vitrail("train", *small("photos"), "--out", "undisturbed", "--json").json
    with interrupted(number):
        done = vitrail("train", *small("photos"), "--out", "my run")
    assert (done.code, done.out) == (128 + number, "")
    assert done.err == (
        f"Stopped by {number.name} after step 2 of 6, all saved; continue with: vitrail train --resume --out 'my run'\n"
    )
    assert Path("my run/figures/curves.png").is_file()
    assert not Path("my run/predictions/test.parquet").exists()
    resumed = vitrail("train", "--resume", "--out", "my run", "--json")
    assert resumed.code == 0
    assert resumed.json["test"] == undisturbed["test"]
    assert resumed.json["images_seen"] == undisturbed["images_seen"]
    assert weights("my run") == weights("undisturbed")
    assert metrics("my run") == metrics("undisturbed")


def test_a_stopped_command_prints_one_object_too(vitrail, small, interrupted):
    with interrupted(signal.SIGTERM):
        done = vitrail("train", *small("photos"), "--out", "run", "--json")
    assert done.code == 143
    assert done.json == {"error": done.err.strip(), "exit_code": 143}


def test_the_newest_unfinished_run_is_resumed(vitrail, stopped, small):
    stopped("runs/b")
    stopped("runs/a")
    vitrail("train", *small("photos"), "--out", "runs/finished")
    done = vitrail("train", "--resume", "--json")
    assert (done.code, done.json["run"]) == (0, "runs/a")
    assert vitrail("train", "--resume", "--json").json["run"] == "runs/b"
    done = vitrail("train", "--resume")
    assert done.code == 2
    assert done.error == "There is no unfinished run below runs/ here to resume; give its directory with --out"


def test_the_same_command_with_resume_goes_on(vitrail, stopped, small):
    stopped("run")
    assert vitrail("train", *small("photos"), "--out", "run", "--resume", "--seed", "0").code == 0


def test_what_was_not_said_again_stays_as_it_was(vitrail, stopped):
    stopped("run")
    done = vitrail("train", "--resume", "--out", "run", "--epochs", "2", "--json")
    assert (done.code, done.json["images_seen"]) == (0, 6 * 16)  # batches of 16, not the recipe's 64


def test_other_settings_are_refused_and_listed(vitrail, stopped):
    stopped("run")
    done = vitrail(
        "train", "--resume", "--out", "run", "--epochs", "3", "--set", "training.batch_size=8", "--seed", "0"
    )
    assert done.code == 2
    assert done.error == (
        "run has other settings (training.epochs: 2 -> 3; training.batch_size: 16 -> 8); "
        "resume it without them, or start a new run"
    )
    done = vitrail("train", "--resume", "--out", "run", "--recipe", "mnist", "--model", "s5_vit")
    assert done.code == 2
    assert "(recipe: digits -> mnist; model_name: vit_micro_conv4_8 -> s5_vit)" in done.error


def test_other_data_are_refused(vitrail, stopped, write_idx):
    stopped("run")
    done = vitrail("train", "digits", "--resume", "--out", "run")
    assert (done.code, done.error) == (2, "run was trained on photos, not digits; resume it on its own data")
    write_idx(Path("photos"), seed=1)
    done = vitrail("train", "--resume", "--out", "run")
    assert done.code == 1
    assert done.error == "photos is not the data that the splits were drawn from; its images or labels changed"


def test_data_that_moved_are_found_where_they_are_now(vitrail, stopped):
    stopped("run")
    Path("elsewhere").mkdir()
    shutil.move("photos", "elsewhere/photos")
    assert vitrail("train", "--resume", "--out", "run").code == 2
    assert vitrail("train", "elsewhere/photos", "--resume", "--out", "run").code == 0


def test_a_finished_run_is_not_resumed(vitrail, small, run):
    before = weights("run")
    done = vitrail("train", "--resume", "--out", "run")
    assert (done.code, done.error) == (2, "run is finished; `vitrail train` without --resume starts a new run")
    done = vitrail("train", *small("photos"), "--out", "run")
    assert (done.code, done.error) == (2, "run already holds a run; continue it with --resume, or give another --out")
    assert weights("run") == before


def test_what_is_no_run_is_not_resumed(vitrail, run):
    Path("runs").mkdir()
    run.rename("runs/one")
    done = vitrail("train", "--resume", "--out", "runs/oen")
    assert (done.code, done.error) == (
        2,
        "No run at runs/oen. Did you mean 'runs/one'? Give a run's directory, or `last` for the newest finished one",
    )
    done = vitrail("train", "--resume", "--out", "photos", "--json")
    assert done.code == 2
    assert done.json["error"] == done.error
    assert done.error.startswith("photos is not a run: it holds no config.json")


def test_a_torn_checkpoint_is_said_and_the_one_before_is_used(vitrail, small, stopped):
    vitrail("train", *small("photos"), "--out", "undisturbed")
    stopped("run")
    stopped_at = Path("run/checkpoints/step-000000002.safetensors")
    stopped_at.write_bytes(stopped_at.read_bytes()[:-1])
    done = vitrail("train", "--resume", "--out", "run")
    assert done.code == 1
    assert "No checkpoint in run/checkpoints is whole" in done.error
    shutil.rmtree("run/checkpoints")  # nothing left: from the beginning
    Path("run/checkpoints").mkdir()
    assert vitrail("train", "--resume", "--out", "run").code == 0
    assert weights("run") == weights("undisturbed")
