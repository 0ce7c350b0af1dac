import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitrail.data.findings import Finding
from vitrail.reporting.report_facts import read_facts, settings_table, shown_name, shown_source, without_paths


def test_the_facts_are_those_of_the_files(made_run: Any) -> None:
    facts = read_facts(made_run.directory)
    assert (facts.name, facts.dataset, facts.split) == ("photos-digits-1", "photos", "test")
    assert facts.classes == ("class 0", "class 1", "class 2")
    assert facts.counts == {"train": 30, "validation": 30, "test": 30}
    assert facts.judged["images"] == 30
    assert [len(facts.steps), len(facts.evaluations)] == [2, 2]
    assert facts.missing == ()
    assert not facts.multilabel


@pytest.mark.parametrize(
    ("name", "text", "missing"),
    [
        ("config.json", "{", "config.json is damaged: settings are not known"),
        ("splits.json", None, "splits.json is missing or damaged: the splits are not known"),
        ("audit.json", "[]", "audit.json is damaged: its findings are not known"),
        ("audit.json", '{"classes": ["a"]}', "audit.json is damaged: its findings are not known"),
        ("environment.json", None, "environment.json is missing or damaged: versions and hardware are not known"),
        ("metrics.jsonl", None, "metrics.jsonl is missing or empty: how training went is not known"),
        ("model.json", "{}", "model.json is missing or damaged: what the model takes is not known"),
        (
            "journal.jsonl",
            '{"event": "finished", "result": {"validation": {"images": 3}}}\n',
            "journal.jsonl holds no results as this version writes them: they are not known",
        ),
    ],
)
def test_a_damaged_file_costs_nothing_but_what_it_says(
    made_run: Any, name: str, text: str | None, missing: str
) -> None:
    path = made_run.path / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")
    facts = read_facts(made_run.directory)
    assert facts.missing == (missing,)
    assert facts.classes == ("class 0", "class 1", "class 2")


def test_the_audit_is_read_as_it_was_written(made_run: Any) -> None:
    finding = Finding("dark", "all", ("ant/1.png",), "ant/1.png is very dark", {"mean": 3.0})
    audit = {
        "dataset": "photos",
        "classes": ["ant", "bee"],
        "counts": {"all": {"ant": 3, "bee": 4}},
        "num_images": {"all": 7},
        "broken": {"all": [{"image": "x.png", "reason": "x.png is empty"}]},
        "ignored": ["notes.txt"],
        "findings": [finding.to_dict()],
        "statistics": {},
        "notes": [],
    }
    made_run.directory.audit_path.write_text(json.dumps(audit), encoding="utf-8")
    found = read_facts(made_run.directory).audit
    assert found is not None
    assert found.findings == (finding,)
    assert found.sentences()[0] == "photos: 7 images of 2 classes (3 ant to 4 bee)"
    assert {key: found.to_dict()[key] for key in audit} == audit


def test_class_counts_are_those_of_the_training_images(made_run: Any) -> None:
    splits = json.loads(made_run.directory.splits_path.read_text(encoding="utf-8"))
    members = {"hashes": ["a", "b", "c"], "labels": [0, 2, 2], "names": ["x", "y", "z"]}
    splits["splits"]["train"]["members"] = members
    made_run.directory.splits_path.write_text(json.dumps(splits), encoding="utf-8")
    facts = read_facts(made_run.directory)
    assert facts.class_counts == (1, 0, 2)
    assert facts.counts["train"] == 3


def test_a_run_without_a_test_is_judged_by_validation_and_one_unfinished_by_nothing(
    other_run: Callable[..., Any],
) -> None:
    assert read_facts(other_run(test=False).directory).split == "validation"
    unfinished = read_facts(other_run(finished=False).directory)
    assert (unfinished.split, unfinished.result, unfinished.judged) == (None, None, {})


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("digits", "digits"),
        ("hf:owner/name", "hf:owner/name"),
        ("/home/ann/photos", "photos"),
        ("../ann/photos/", "photos"),
        (r"C:\Users\ann\photos", "photos"),
        ("s3://secret@bucket/photos?token=1", "photos"),
        ("hf:/home/ann/model", "model"),
    ],
)
def test_what_sources_are_called(source: str, shown: str) -> None:
    assert shown_source(source) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ant/1.png", "ant/1.png"),
        ("/home/ann/ant/1.png", "1.png"),
        (r"C:\ann\1.png", "1.png"),
        ("~ann/1.png", "1.png"),
        ("../ann/1.png", "1.png"),
        ("https://host/a/1.png?key=secret", "1.png"),
    ],
)
def test_what_images_are_called(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_sentences_lose_the_folders_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_paths("/home/ann/photos/a.png is dark") == "a.png is dark"
    assert without_paths(r"C:\Users\ann\a.png = ~/b/c.png (D:/x/y.png)") == "a.png = c.png (y.png)"
    assert without_paths(f"{tmp_path}/my photos/a.png is dark") == "my photos/a.png is dark"
    kept = "ant/1.png is train/00001, 1/5 of 0.5/s; and/or 3 / 4, hf:owner/name"
    assert without_paths(kept) == kept


def test_settings_are_told_without_paths() -> None:
    config = {"init": "/home/ann/weights.safetensors", "seed": 0, "data": {"source": "/home/ann/x", "also": []}}
    told = dict(settings_table(config))
    assert told == {"init": "weights.safetensors", "seed": "0", "data.source": "x", "data.also": "none"}
