"""vitrail runs, vitrail runs diff"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

HEADINGS = ["run", "data", "recipe", "model", "test accuracy (95 %)", "seconds", "state", "created"]


@pytest.fixture
def two(run):
    """Two finished runs, runs/a and runs/b, the newer one of another seed and wrong on the first test image."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    Path("runs").mkdir()
    shutil.copytree(run, "runs/a")
    run.rename("runs/b")
    config_path, predictions = Path("runs/b/config.json"), Path("runs/b/predictions/test.parquet")
    config_path.write_text(json.dumps(json.loads(config_path.read_text()) | {"seed": 7}))
    table = pq.read_table(predictions, columns=["image", "label", "prediction"]).to_pydict()
    pq.write_table(pa.table(table | {"prediction": table["label"]}), Path("runs/a/predictions/test.parquet"))
    pq.write_table(pa.table(table | {"prediction": ["wrong", *table["label"][1:]]}), predictions)
    for name, moment in (("a", 1_700_000_000), ("b", 1_700_000_060)):
        os.utime(Path("runs", name, "config.json"), (moment, moment))
    return table["image"]


def test_no_runs(vitrail):
    done = vitrail("runs")
    assert (done.code, done.out, done.err) == (0, "", "There are no runs in runs; `vitrail train` makes one\n")
    assert vitrail("runs", "--json").json == {"runs": []}


def test_the_list(vitrail, two):
    done = vitrail("runs")
    assert (done.code, done.err) == (0, "")
    heading, *lines = done.out.splitlines()
    starts = [heading.index(name) for name in HEADINGS]
    cells = [
        [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)] for line in lines
    ]
    rows = vitrail("runs", "--json").json["runs"]
    assert [row[0] for row in cells] == [row["name"] for row in rows] == ["a", "b"]
    for row, facts in zip(cells, rows, strict=True):
        low, high = (f"{100 * end:.1f}" for end in facts["accuracy_ci95"])
        accuracy = f"{100 * facts['accuracy']:.1f} ({low} to {high})"
        assert row[1:7] == ["photos", "digits", facts["model"], accuracy, f"{facts['total_seconds']:.0f}", "finished"]
        assert len(row[7]) == len("2023-11-14 22:13")


def test_runs_elsewhere(vitrail, run):
    for folder in (".", "run"):
        done = vitrail("runs", "--folder", folder)
        assert (done.code, len(done.out.splitlines())) == (0, 2)
        assert done.out.splitlines()[1].split()[0] == "run"
    assert vitrail("runs", "--folder", "photos").err == "There are no runs in photos; `vitrail train` makes one\n"
    done = vitrail("runs", "--folder", "nowhere")
    assert (done.code, done.error) == (2, "nowhere is not a folder; give one that holds runs, or a run's own")


def test_a_stopped_run_and_a_damaged_one(vitrail, small, interrupted):
    with interrupted(signal.SIGINT):
        vitrail("train", *small("photos"), "--out", "runs/stopped")
    line = vitrail("runs").out.splitlines()[1].split()
    assert line[:2] == ["stopped", "photos"]
    assert line[4:7] == ["-", "-", "interrupted"]
    Path("runs/stopped/config.json").write_text("{torn")
    done = vitrail("runs")
    assert done.code == 0
    assert "  damaged: config.json is torn or no JSON  " in done.out


def test_the_difference_word_for_word(vitrail, two):
    done = vitrail("runs", "diff", "a", "last")
    a, b = os.path.join("runs", "a"), os.path.join("runs", "b")
    found = vitrail("runs", "diff", "a", "b", "--json").json
    low, high = (100 * end for end in found["paired"]["difference_ci95"])
    least = 100 * found["paired"]["smallest_difference"]
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"a  {a}\nb  {b}\n"
        "\n"
        "setting  a  b\n"
        "seed     0  7\n"
        "\n"
        f"only a is right on 1 of 30 test images: {two[0]}\n"
        "only b is right on 0 of 30 test images\n"
        "\n"
        f"The test images cannot tell them apart: 3.3 points between them (95 % interval {low:.1f} to {high:.1f}, "
        f"exact McNemar p = 1); 30 test images show differences from about {least:.1f} points on\n"
    )
    assert (found["a"], found["b"], found["settings"]) == (a, b, {"seed": {"a": 0, "b": 7}})
    assert (found["paired"]["images_only_a"], found["paired"]["images_only_b"]) == ([two[0]], [])
    assert done.out.splitlines()[-1] == found["verdict"]


def test_missing_and_unusual_values_are_written_as_settings_are(vitrail, two):
    path = Path("runs/b/config.json")
    config = json.loads(path.read_text())
    config["training"] |= {"clip_norm": None, "betas": [0.9, 0.99], "deterministic": True}
    del config["seed"]
    path.write_text(json.dumps(config))
    lines = [line.split() for line in vitrail("runs", "diff", "a", "b").out.splitlines()]
    assert ["seed", "0", "-"] in lines
    assert ["training.clip_norm", "1", "none"] in lines
    assert ["training.betas", "0.9,0.999", "0.9,0.99"] in lines
    assert ["training.deterministic", "false", "true"] in lines


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["diff", "a"], "Missing argument 'B'; `vitrail runs diff --help` shows its usage"),
        (["diff"], "Missing argument 'A'; `vitrail runs diff --help` shows its usage"),
        (["dif", "a", "b"], "No such command 'dif'. Did you mean 'diff'? `vitrail runs --help` shows its usage"),
        (["diff", "a", "a"], "a and a are the same run, runs/a; name two different ones"),
        (
            ["diff", "a", "run/b"],
            "No run at run/b. Did you mean 'runs/b'? Give a run's directory, or `last` for the newest finished one",
        ),
        (
            ["--folder", "runs", "diff", "a", "b"],
            "Options go behind `diff`, which takes --json alone: vitrail runs diff A B --json",
        ),
    ],
)
def test_mistakes_are_one_sentence(vitrail, two, arguments, shown):
    done = vitrail("runs", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.error == shown.replace("runs/", "runs" + os.sep)
    done = vitrail("runs", *arguments, "--json")
    assert (done.code, done.json) == (2, {"error": done.error, "exit_code": 2})


def test_diff_has_help(vitrail):
    done = vitrail("runs", "diff", "-h")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: vitrail runs diff [OPTIONS]")
    assert "--json" in done.out
    assert "diff" in vitrail("runs", "--help").out


def test_a_bare_name_is_a_run_wherever_one_is_asked_for(vitrail, two):
    assert vitrail("evaluate", "b", "--json").json["run"] == os.path.join("runs", "b")
