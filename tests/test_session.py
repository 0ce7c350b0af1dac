import json
import os
import subprocess
import sys

import pytest
import torch
from filelock import FileLock

import vitrail
from vitrail.errors import ConfigError
from vitrail.runs import RunDirectory

SMALL = {"model.embed_dim": 16, "model.depth": 1}


class Stop(Exception):
    """Ends a training from within, as a crash would."""


def crash_after(epoch):
    def report(progress):
        if progress.evaluation is not None and progress.epoch == epoch:
            raise Stop

    return report


@pytest.fixture
def stopped(tmp_path):
    """The directory of a run that crashed after the first of two epochs."""
    with pytest.raises(Stop, match=r"^$"):
        vitrail.train("digits", epochs=2, settings=SMALL, out=tmp_path / "run", report=crash_after(1))
    return tmp_path / "run"


def test_the_caller_keeps_its_random_numbers_and_threads(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    vitrail.train("digits", epochs=1, settings=SMALL, out=tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before


def test_a_run_that_is_being_trained_is_left_alone(stopped):
    with FileLock(stopped / ".lock"), pytest.raises(ConfigError, match="is being trained by another process; wait"):
        vitrail.train(resume=True, out=stopped)
    assert vitrail.train(resume=True, out=stopped).result["epochs"] == 2


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(stopped):
    program = "import os, sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", program, str(stopped / ".lock")], check=False)
    assert killed.returncode == (-9 if os.name != "nt" else 1)
    assert vitrail.train(resume=True, out=stopped).result["stopped"] == "done"


@pytest.mark.parametrize("change", ["validation", "classes"])
def test_other_images_or_classes_are_refused_when_a_run_goes_on(stopped, change):
    journal = RunDirectory(stopped).journal
    lines = journal.events()
    start = next(line for line in lines if line["event"] == "start")
    assert len(start["data"]) == 2 + 10  # fingerprints of both splits, and the names of the classes
    start["data"][1 if change == "validation" else -1] = "other"
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="began with other images, labels or classes than digits has now"):
        vitrail.train(resume=True, out=stopped)


def test_a_run_goes_on_with_what_it_began_with(stopped):
    journal = RunDirectory(stopped).journal
    began = journal.last("start")
    lines = [{**line, "bfloat16": True} if line["event"] == "start" else line for line in journal.events()]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    vitrail.train(resume=True, out=stopped)
    resumed = journal.last("resume")
    assert resumed["bfloat16"] is True  # as journalled, though a new run on the CPU would have said False
    assert (resumed["device"], resumed["threads"]) == (began["device"], began["threads"])


def test_a_run_goes_on_on_its_own_device(stopped):
    journal = RunDirectory(stopped).journal
    lines = [{**line, "device": "cuda:7"} if line["event"] == "start" else line for line in journal.events()]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="device='cuda:7' is not there"):
        vitrail.train(resume=True, out=stopped)
    assert vitrail.train(resume=True, out=stopped, device="cpu").result["stopped"] == "done"
