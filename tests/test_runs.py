import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vitrail.config import config_to_json
from vitrail.errors import CheckpointError, ConfigError
from vitrail.recipes import recipe_function
from vitrail.runs import (
    Journal,
    RunDirectory,
    all_runs,
    copy_decisions,
    find_run,
    new_run,
    newest_unfinished,
    read_json_lines,
)

CONFIG = recipe_function("digits")()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(path, age, finished=False):
    """A run that was made `age` seconds before a fixed moment."""
    run = RunDirectory(path)
    run.create(config_to_json(CONFIG), "{}")
    os.utime(run.config_path, (1_700_000_000 - age,) * 2)
    if finished:
        run.journal.write("finished", result={"run": str(path)})
    return run


# The journal


def test_events_come_back_in_order(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.events() == []
    assert journal.last("start") is None
    journal.write("start", threads=2, device="cpu")
    journal.write("resume", name="Käfer\n\u2028")
    journal.write("start", threads=4)
    assert journal.events() == [
        {"event": "start", "threads": 2, "device": "cpu"},
        {"event": "resume", "name": "Käfer\n\u2028"},
        {"event": "start", "threads": 4},
    ]
    assert journal.last("start") == {"event": "start", "threads": 4}
    assert journal.last("finished") is None


@pytest.mark.parametrize("torn", ['{"event": "sta', '{"event": "start", "name": "\xc3', '"start"', "{"])
def test_a_torn_last_line_is_passed_over_and_the_next_one_is_whole(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("start", threads=2)
    with path.open("ab") as file:
        file.write(torn.encode("latin-1"))
    assert journal.events() == [{"event": "start", "threads": 2}]
    journal.write("compile", step=3)
    journal.write("early_stop", step=4)
    assert [event["event"] for event in journal.events()] == ["start", "compile", "early_stop"]


def test_an_event_is_durable_when_write_returns(tmp_path, monkeypatch):
    path, seen = tmp_path / "journal.jsonl", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(path.read_text()))
    Journal(path).write("start")
    assert seen == ['{"event": "start"}\n']


def test_a_journal_that_cannot_be_written_is_one_sentence(tmp_path):
    path = tmp_path / "gone" / "journal.jsonl"
    with pytest.raises(
        CheckpointError, match=rf"^{re.escape(str(path))} could not be written: No such file or directory$"
    ):
        Journal(path).write("start")


def test_json_lines_are_objects_only(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert [*read_json_lines(path)] == []
    path.write_text('{"a": 1}\n\n[2]\nnull\n{"b": }\n{"c": 3}')
    assert [*read_json_lines(path)] == [{"a": 1}, {"c": 3}]


# A run's directory


def test_a_run_has_its_folders_config_and_splits(tmp_path):
    run = RunDirectory("some/where/a run")
    assert not run.exists()
    run.create(config_to_json(CONFIG), '{"splits": 1}\n')
    assert run.exists()
    assert run.config() == CONFIG
    assert run.splits_path.read_text() == '{"splits": 1}\n'
    assert run.result() is None
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints", "config.json", "figures", "predictions", "splits.json"
    ]  # fmt: skip
    run.journal.write("finished", result={"accuracy": 0.5})
    assert run.result() == {"accuracy": 0.5}


def test_an_empty_folder_can_become_a_run():
    Path("empty").mkdir()
    RunDirectory("empty").create("{}", "{}")
    assert RunDirectory("empty").exists()


def test_the_config_is_written_last(monkeypatch):
    written = []
    monkeypatch.setattr(
        "vitrail.checkpoint.write_atomically", lambda path, content: path.touch() or written.append(path.name)
    )
    RunDirectory("run").create("{}", "{}")
    assert written[-1] == "config.json"  # a run exists from then on


def test_folders_in_use_are_refused():
    Path("file").write_text("")
    Path("full").mkdir()
    Path("full/holiday.png").write_text("")
    make("taken", 0)
    for name, message in (
        ("file", r"^file is a file; give --out a folder for the run$"),
        ("full", r"^full is not empty and holds no run; give --out a new folder$"),
        ("taken", r"^taken already holds a run; continue it with --resume, or give another --out$"),
    ):
        with pytest.raises(ConfigError, match=message):
            RunDirectory(name).create("{}", "{}")
    assert [path.name for path in Path("full").iterdir()] == ["holiday.png"]
    assert RunDirectory("taken").config() == CONFIG


def test_a_path_below_a_file_is_refused():
    Path("file").write_text("")
    with pytest.raises(CheckpointError, match=r"^file.run could not be made: .+"):
        RunDirectory("file/run").create("{}", "{}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused():
    Path("locked").mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match=r"^locked.run could not be made: Permission denied$"):
        RunDirectory("locked/run").create("{}", "{}")


def test_a_damaged_config_is_named():
    run = make("run", 0)
    run.config_path.write_text("{torn")
    with pytest.raises(ConfigError, match=r"^run.config\.json is not a run's config: "):
        run.config()
    run.config_path.write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"^run.config\.json could not be read: "):
        run.config()


def test_a_run_is_in_training_while_its_lock_is_held():
    run = make("run", 0)
    assert not run.in_training()
    assert not (run.path / ".lock").exists()  # to ask is not to touch
    with run.locked():
        assert run.in_training()
        assert run.in_training()
    assert not run.in_training()
    with run.locked():  # the question has let go of it
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_lock_that_cannot_be_opened_is_held_by_nobody():
    run = make("run", 0)
    (run.path / ".lock").touch(mode=0o000)
    assert not run.in_training()


# Numbers


def test_numbers_count_up():
    names = []
    for _ in range(3):
        run = new_run("digits", "mnist")
        assert run.path.is_dir()
        names.append(str(run.path))
    assert names == [os.path.join("runs", f"digits-mnist-{number}") for number in (1, 2, 3)]
    assert new_run("digits", "digits").path.name == "digits-digits-1"


def test_numbers_follow_the_highest_and_numbers_only():
    for name in ("digits-digits-9", "digits-digits-41", "digits-digits-x", "digits-digits-", "mnist-digits-99"):
        Path("runs", name).mkdir(parents=True)
    assert new_run("digits", "digits").path.name == "digits-digits-42"


def test_names_of_data_become_file_names():
    assert new_run("my photos: cats/dogs*", "digits").path.name == "my_photos_cats_dogs_-digits-1"
    assert new_run("my photos: cats/dogs*", "digits").path.name == "my_photos_cats_dogs_-digits-2"
    assert new_run("Käfer", "digits").path.name == "K_fer-digits-1"


def test_threads_never_share_a_number():
    made, start = [], threading.Barrier(8)

    def make_some():
        start.wait()
        made.extend(new_run("digits", "digits").path for _ in range(10))

    threads = [threading.Thread(target=make_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*made}) == len(made) == 80
    assert {int(path.name.rpartition("-")[2]) for path in made} == {*range(1, 81)}


@pytest.mark.slow
def test_processes_never_share_a_number():
    code = "from vitrail.runs import new_run\nfor _ in range(30): print(new_run('digits', 'digits').path)"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    made = [line for process in processes for line in process.communicate()[0].split()]
    assert len({*made}) == len(made) == 120


def test_a_file_called_runs_is_in_the_way():
    Path("runs").write_text("")
    with pytest.raises(CheckpointError, match=r"^runs could not be made: .+; give --out$"):
        new_run("digits", "digits")


# Finding runs


def test_runs_are_listed_oldest_first():
    assert all_runs() == []
    for name, age in (("b", 30), ("a", 20), ("c", 10)):
        make(f"runs/{name}", age)
    Path("runs/no run").mkdir()
    Path("runs/notes.txt").write_text("")
    assert [run.path.name for run in all_runs()] == ["b", "a", "c"]


def test_last_is_the_newest_finished_run():
    with pytest.raises(ConfigError, match=r"^There is no finished run below runs/ here; `vitrail train` makes one$"):
        find_run("last")
    make("runs/first", 30, finished=True)
    make("runs/second", 20, finished=True)
    make("runs/third", 10)
    make("elsewhere", 0, finished=True)
    assert find_run("last").path == Path("runs/second")


def test_the_newest_unfinished_run_is_resumed():
    with pytest.raises(ConfigError, match=r"^There is no unfinished run below runs/ here to resume; .*--out$"):
        newest_unfinished()
    make("runs/first", 30)
    make("runs/second", 20)
    make("runs/third", 10, finished=True)
    assert newest_unfinished().path == Path("runs/second")
    RunDirectory("runs/second").journal.write("finished", result={})
    assert newest_unfinished().path == Path("runs/first")
    RunDirectory("runs/first").journal.write("finished", result={})
    with pytest.raises(ConfigError, match=r"^There is no unfinished run"):
        newest_unfinished()


def test_a_run_whose_finish_was_torn_is_unfinished():
    run = make("runs/first", 30)
    run.journal.path.write_text('{"event": "finished", "result": {"accuracy": 0.')
    assert run.result() is None
    assert newest_unfinished().path == run.path


def test_a_run_is_found_by_its_directory(tmp_path):
    make("somewhere/a run", 0)
    assert find_run("somewhere/a run").config() == CONFIG
    assert find_run(tmp_path / "somewhere" / "a run").exists()


def test_a_run_is_found_by_its_name_below_runs():
    make("runs/a run", 0)
    assert find_run("a run").path == Path("runs", "a run")
    Path("a run").mkdir()  # such as the photos that it was trained on
    assert find_run("a run").path == Path("runs", "a run")
    make("a run", 0)
    assert find_run("a run").path == Path("a run")
    make("runs/nested/a run", 0)
    with pytest.raises(ConfigError, match=r"^No run at nested/a run\. "):
        find_run("nested/a run")
    Path("config.json").write_text("{}")  # which runs/.. would be
    with pytest.raises(ConfigError, match=r"^\.\. is not a run: "):
        find_run("..")


def test_a_name_is_suggested_for_a_name_and_a_path_for_a_path():
    make("runs/digits-digits-1", 0)
    with pytest.raises(ConfigError, match=r"^No run at digits-digits-l\. Did you mean 'digits-digits-1'\? "):
        find_run("digits-digits-l")


def test_what_is_no_run_is_refused_with_the_nearest():
    make("runs/digits-digits-1", 0)
    Path("photos").mkdir()
    with pytest.raises(
        ConfigError, match=r"^photos is not a run: it holds no config\.json; `vitrail train` makes runs"
    ):
        find_run("photos")
    near = re.escape(repr(os.path.join("runs", "digits-digits-1")))
    with pytest.raises(ConfigError, match=rf"^No run at runs/digits-digits-l\. Did you mean {near}\? Give a run's"):
        find_run("runs/digits-digits-l")
    with pytest.raises(ConfigError, match=r"^No run at zebra\. Give a run's directory, or `last` for the newest"):
        find_run("zebra")


def test_opening_a_run_reads_nothing():
    run = RunDirectory("nowhere")
    assert not run.exists()
    assert json.dumps(run.journal.events()) == "[]"
    assert not Path("nowhere").exists()


def test_decisions_are_copied_once_each_and_nothing_else(tmp_path):
    source, target = RunDirectory(tmp_path / "first"), RunDirectory(tmp_path / "second")
    for run in (source, target):
        run.path.mkdir()
    plans = [{"step": 0, "progress": 0.0, "num_steps": 50}, {"step": 30, "progress": 0.6, "num_steps": 47}]
    source.journal.write("start", device="cpu", bfloat16=True, threads=2, data=["a"])
    source.journal.write("plan", **plans[0])
    source.journal.write("compile", step=20, compiled=False)
    source.journal.write("interrupted", step=25, signal="SIGINT")
    source.journal.write("plan", **plans[1])
    for _ in range(2):  # as a run writes it that crashed just after
        source.journal.write("early_stop", step=40, epoch=4)
    source.journal.write("finished", result={})
    copy_decisions(source, target)
    assert target.journal.events() == [
        {"event": "plan", **plans[0]},
        {"event": "compile", "step": 20, "compiled": False},
        {"event": "plan", **plans[1]},
        {"event": "early_stop", "step": 40, "epoch": 4},
        {"event": "repeats", "run": "first", "bfloat16": True, "threads": 2},
    ]


def test_the_newest_run_is_the_last_one_made_also_when_the_clock_was_set_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, seconds in enumerate((2_000_000_000, 1_000_000_000)):
        run = RunDirectory(f"runs/{number}")
        run.create("{}", "{}")
        if number == 0:
            os.utime(run.config_path, (seconds, seconds))  # made when the clock was far ahead
    assert [run.path.name for run in all_runs()] == ["0", "1"]
