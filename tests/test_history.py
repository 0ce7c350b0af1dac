import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vitrail
from vitrail.config import config_to_json, with_settings
from vitrail.errors import ConfigError
from vitrail.history import difference, list_runs
from vitrail.recipes import recipe_function
from vitrail.runs import RunDirectory

LABELS = ["cat"] * 20 + ["dog"] * 20


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(path, age=0, **settings):
    """A run that was made `age` seconds before a fixed moment, and not begun."""
    run = RunDirectory(path)
    run.create(config_to_json(with_settings(recipe_function("digits")(), settings)), "{}")
    os.utime(run.config_path, (1_700_000_000 - age,) * 2)
    return run


def finish(run, wrong=(), labels=LABELS, images=None, fingerprint="f", seconds=3.5, **environment):
    """Let a run end, wrong on the test images at those places."""
    images = images or [f"{place:02}.png" for place in range(len(labels))]
    answers = [("dog" if label == "cat" else "cat") if n in wrong else label for n, label in enumerate(labels)]
    pq.write_table(pa.table({"image": images, "label": labels, "prediction": answers}), run.path / PREDICTIONS)
    accuracy = 1 - len(wrong) / len(labels)
    test = {"images": len(labels), "accuracy": accuracy, "accuracy_ci95": [0.5, 1.0], "loss": 0.25, "confusion": [[1]]}
    result = {"run": str(run.path), "dataset": "pets", "recipe": "digits", "model": "m", "test": test}
    run.journal.write("start", device="cpu")
    run.environment_path.write_text(json.dumps({"data_fingerprint": "d", "packages": {"torch": "2.10"}} | environment))
    (run.path / "model.safetensors").write_bytes(b"")
    ended = {} if fingerprint is None else {"test_fingerprint": fingerprint}
    run.journal.write("finished", result=result | {"total_seconds": seconds}, **ended)
    return run


PREDICTIONS = Path("predictions", "test.parquet")


# The list


def test_no_runs():
    assert list_runs() == []
    with pytest.raises(ConfigError, match=r"^nowhere is not a folder; give one that holds runs, or a run's own$"):
        list_runs("nowhere")
    Path("runs").write_text("")
    with pytest.raises(ConfigError, match=r"^runs is not a folder"):
        list_runs()


def test_a_finished_run_has_its_facts():
    finish(make("runs/pets-digits-1"), wrong=range(4))
    assert list_runs() == [
        {
            "run": os.path.join("runs", "pets-digits-1"),
            "name": "pets-digits-1",
            "state": "finished",
            "problem": None,
            "dataset": "pets",
            "recipe": "digits",
            "model": "vit_micro_conv4_8",
            "accuracy": 0.9,
            "accuracy_ci95": [0.5, 1.0],
            "total_seconds": 3.5,
            "created": "2023-11-14T22:13:20+00:00",
        }
    ]


def test_the_newest_is_last_and_other_folders_are_no_runs():
    for name, age in (("b", 30), ("a", 20), ("c", 10)):
        make(f"runs/{name}", age)
    Path("runs/being made").mkdir()
    Path("runs/notes.txt").write_text("")
    assert [row["name"] for row in list_runs()] == ["b", "a", "c"]


def test_runs_elsewhere_are_listed_with_their_paths():
    make("out/a")
    assert [row["run"] for row in list_runs("out")] == [os.path.join("out", "a")]
    (row,) = list_runs(Path("out", "a"))
    assert (row["run"], row["name"]) == (os.path.join("out", "a"), "a")


def test_states_of_runs_that_have_not_finished(monkeypatch):
    run = make("runs/a")
    assert list_runs()[0]["state"] == "unfinished"
    run.journal.write("start", device="cpu")
    with run.locked():
        assert list_runs()[0]["state"] == "running"
    assert list_runs()[0]["state"] == "unfinished"
    (run.checkpoints_path / "step-000000010.json").write_text("{}")
    (row,) = list_runs()
    assert (row["state"], row["problem"], row["accuracy"], row["total_seconds"]) == ("interrupted", None, None, None)
    assert (row["dataset"], row["recipe"], row["model"]) == ("digits", "digits", "vit_micro_conv4_8")


def test_listing_changes_nothing():
    run = make("runs/a")
    before = sorted(path.name for path in run.path.rglob("*"))
    list_runs()
    assert sorted(path.name for path in run.path.rglob("*")) == before


def test_data_that_are_joined_have_all_their_names():
    run = make("runs/a")
    config = json.loads(run.config_path.read_text())
    config["data"] |= {"source": "/home/someone/cats", "also": ["dogs/"]}
    run.config_path.write_text(json.dumps(config))
    assert list_runs()[0]["dataset"] == "cats+dogs"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.json", b'{"recipe": "dig', "config.json is torn or no JSON"),
        ("config.json", b"\xff", "config.json is torn or no JSON"),
        ("config.json", b"[1]", "config.json is not an object of settings"),
        ("config.json", None, "config.json is missing"),
        ("journal.jsonl", None, "journal.jsonl is missing"),
        ("journal.jsonl", b"\x00\x00", "journal.jsonl is damaged"),
        ("journal.jsonl", b'{"event": "finished"}\n', "journal.jsonl holds no result"),
        ("model.safetensors", None, "model.safetensors is missing"),
    ],
)
def test_a_damaged_run_says_so(name, content, problem):
    run = finish(make("runs/a"))
    path = run.path / name
    path.unlink() if content is None else path.write_bytes(content)
    (row,) = list_runs()
    assert (row["state"], row["problem"]) == ("damaged", problem)
    assert row["recipe"] == "digits"  # what is whole is still told
    assert row["model"] == ("m" if name == "config.json" else "vit_micro_conv4_8")


def test_what_is_not_of_its_kind_is_left_out():
    run = make("runs/a")
    run.config_path.write_text('{"recipe": 3, "data": []}')
    run.journal.write("finished", result={"test": {"accuracy": "much", "accuracy_ci95": [1]}, "total_seconds": True})
    (run.path / "model.safetensors").write_bytes(b"")
    (row,) = list_runs()
    unknown = ("dataset", "recipe", "model", "accuracy", "accuracy_ci95", "total_seconds")
    assert [row[key] for key in unknown] == [None] * 6


def test_the_list_needs_nothing_heavy():
    finish(make("runs/a"))
    code = """
import sys
from vitrail.history import list_runs
assert len(list_runs()) == 1
print({"torch", "numpy", "pydantic", "pyarrow", "scipy"} & {*sys.modules})
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# Two runs beside each other


def test_settings_results_and_environment_that_differ():
    finish(make("runs/a", seed=1), wrong=[0], git={"commit": "abc"})
    finish(make("runs/b", seed=2), wrong=[0, 1], seconds=4.5, packages={"torch": "2.11"})
    found = difference("a", Path("runs", "b"))
    assert (found["a"], found["b"]) == (os.path.join("runs", "a"), os.path.join("runs", "b"))
    assert found["settings"] == {"seed": {"a": 1, "b": 2}}
    assert found["results"] == {
        "test.accuracy": {"a": 0.975, "b": 0.95},
        "total_seconds": {"a": 3.5, "b": 4.5},
    }
    assert found["environment"] == {"packages.torch": {"a": "2.10", "b": "2.11"}, "git.commit": {"a": "abc"}}
    assert json.loads(json.dumps(found)) == found


def test_a_setting_that_only_one_has_is_shown():
    finish(make("runs/a"))
    run = finish(make("runs/b"))
    config = json.loads(run.config_path.read_text())
    del config["training"]["momentum"]
    config["of_tomorrow"] = None
    run.config_path.write_text(json.dumps(config))
    found = difference("a", "b")
    assert found["settings"] == {"training.momentum": {"a": 0.95}, "of_tomorrow": {"b": None}}


def test_without_an_environment_results_are_still_compared():
    finish(make("runs/a"), wrong=[0]).environment_path.unlink()
    finish(make("runs/b"), wrong=[1])
    found = difference("a", "b")
    assert found["environment"]["data_fingerprint"] == {"b": "d"}
    assert found["paired"]["images"] == 40


def test_the_better_one_is_named_whichever_comes_first():
    finish(make("runs/bad"), wrong=range(12))
    finish(make("runs/good"), wrong=[39])
    for pair, side in ((("bad", "good"), "b"), (("good", "bad"), "a")):
        found = difference(*pair)
        paired = found["paired"]
        assert paired["images"] == 40
        assert abs(paired["difference"]) == pytest.approx(11 / 40)
        assert paired["mcnemar_p"] == pytest.approx(2 * (1 + 13) / 2**13)  # 1 of 13 discordant images, two-sided
        other = "ab".replace(side, "")
        assert paired[f"images_only_{side}"] == [f"{place:02}.png" for place in range(12)]
        assert paired[f"images_only_{other}"] == ["39.png"]
        assert (paired[f"only_{side}"], paired[f"only_{other}"]) == (12, 1)
        good = os.path.join("runs", "good")
        assert found["verdict"].startswith(f"{good} is better by 27.5 points (95 % interval ")
        assert found["verdict"].endswith(", exact McNemar p = 0.0034)")
        low, high = (float(end) for end in found["verdict"].split("interval ")[1].split(",")[0].split(" to "))
        assert 0 < low < 27.5 < high


def test_a_very_small_p_is_not_written_out():
    finish(make("runs/a"), wrong=range(20))
    finish(make("runs/b"))
    assert difference("a", "b")["verdict"].endswith("exact McNemar p < 0.001)")


def test_too_few_images_tell_nothing_apart():
    finish(make("runs/a"), wrong=[0, 1, 2])
    finish(make("runs/b"), wrong=[3])
    found = difference("a", "b")
    assert found["paired"]["mcnemar_p"] == pytest.approx(0.625)
    verdict = found["verdict"]
    assert verdict.startswith("The test images cannot tell them apart: 5.0 points between them (95 % interval ")
    least = 100 * found["paired"]["smallest_difference"]
    assert verdict.endswith(
        f", exact McNemar p = 0.62); 40 test images show differences from about {least:.1f} points on"
    )


def test_images_that_can_show_nothing_are_called_too_few():
    for name, wrong in (("a", [0, 1]), ("b", [])):
        finish(make(f"runs/{name}"), wrong=wrong, labels=["cat", "dog", "cat", "dog"])
    found = difference("a", "b")
    assert found["paired"]["smallest_difference"] is None
    assert found["verdict"].endswith("exact McNemar p = 0.5); 4 test images are too few to show any")


def test_equal_runs_are_called_equal():
    finish(make("runs/a"), wrong=[0], seconds=1.0)
    finish(make("runs/b"), wrong=[0], seconds=2.0)
    found = difference("a", "b")
    assert found["settings"] == {}
    assert found["results"] == {"total_seconds": {"a": 1.0, "b": 2.0}}
    assert found["verdict"] == (
        "The runs are equal: the same settings, the same results, the same answers to 40 test images"
    )


def test_other_settings_with_the_same_answers_are_not_equal():
    finish(make("runs/a", seed=1), wrong=[0])
    finish(make("runs/b", seed=2), wrong=[0])
    assert difference("a", "b")["verdict"] == (
        "The test images cannot tell them apart: both give the same answers, 40 test images"
    )


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"labels": LABELS[:30]}, "runs/a was tested on 40 images, runs/b on 30"),
        ({"labels": LABELS[::-1]}, "the two runs were tested on different images or labels"),
        ({"fingerprint": "other"}, "the two runs were tested on different images or labels"),
    ],
)
def test_other_test_images_are_not_paired(other, reason):
    finish(make("runs/a"))
    finish(make("runs/b"), **other)
    found = difference("a", "b")
    assert found["paired"] is None
    assert found["verdict"] == f"There is no paired test: {reason.replace('runs/', 'runs' + os.sep)}"


def test_the_data_count_where_a_run_does_not_know_its_test_images():
    finish(make("runs/a"), wrong=[0], fingerprint=None)
    finish(make("runs/b"))
    assert difference("a", "b")["paired"] is not None
    finish(make("runs/c"), data_fingerprint="other")
    assert difference("a", "c")["paired"] is None


def test_training_data_may_differ_where_test_images_do_not():
    finish(make("runs/a"), wrong=[0], data_fingerprint="before")
    finish(make("runs/b"), data_fingerprint="after")
    found = difference("a", "b")
    assert found["environment"] == {"data_fingerprint": {"a": "before", "b": "after"}}
    assert found["paired"] is not None


@pytest.mark.parametrize("content", [None, b"torn", b""])
def test_predictions_that_cannot_be_read_are_named(content):
    finish(make("runs/a"))
    path = finish(make("runs/b")).path / PREDICTIONS
    path.unlink() if content is None else path.write_bytes(content)
    assert difference("a", "b")["verdict"] == f"There is no paired test: {path} is missing or damaged"


def test_predictions_of_other_columns_are_named():
    finish(make("runs/a"))
    path = finish(make("runs/b")).path / PREDICTIONS
    pq.write_table(pa.table({"image": ["a"]}), path)
    assert difference("a", "b")["verdict"] == f"There is no paired test: {path} is missing or damaged"


def test_of_unfinished_runs_only_settings_are_compared():
    finish(make("runs/a", seed=1))
    make("runs/b", seed=2)
    make("runs/c", seed=2)
    found = difference("a", "b")
    assert found["settings"] == {"seed": {"a": 1, "b": 2}}
    assert (found["results"], found["environment"], found["paired"]) == ({}, {}, None)
    b, c = (os.path.join("runs", name) for name in "bc")
    assert found["verdict"] == f"{b} has not finished; only settings are compared"
    assert difference("b", "c")["verdict"] == (
        f"{b} and {c} have not finished; only settings are compared, which are the same"
    )


def test_what_cannot_be_compared_is_one_sentence():
    a, b = finish(make("runs/a", age=10)), finish(make("runs/b"))
    with pytest.raises(ConfigError, match=r"^last and b are the same run, runs.b; name two different ones$"):
        difference("last", "b")
    with pytest.raises(ConfigError, match=r"^No run at runs/c\. Did you mean 'runs.[ab]'\? "):
        difference("a", "runs/c")
    a.config_path.write_text("{torn")
    with pytest.raises(ConfigError, match=r"^runs.a is damaged: config\.json is torn or no JSON; name another run$"):
        difference("a", "b")
    b.journal.path.unlink()
    a.config_path.write_text("{}")
    with pytest.raises(ConfigError, match=r"^runs.b is damaged: journal\.jsonl is missing; name another run$"):
        difference("a", "b")


def test_the_verbs_give_the_same():
    finish(make("runs/a"), wrong=[0])
    finish(make("runs/b"), wrong=[1])
    assert vitrail.list_runs() == vitrail.list_runs(Path("runs")) == list_runs()
    assert vitrail.difference("a", "b") == difference("a", "b")
