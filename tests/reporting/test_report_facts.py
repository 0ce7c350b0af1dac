import json
from collections.abc import Callable
from typing import Any

import pytest

from vitrail.data.findings import Finding
from vitrail.reporting.report_facts import read_facts, settings_table


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


def test_settings_are_told_without_paths() -> None:
    config = {"init": "/home/ann/weights.safetensors", "seed": 0, "data": {"source": "/home/ann/x", "also": []}}
    told = dict(settings_table(config))
    assert told == {"init": "weights.safetensors", "seed": "0", "data.source": "x", "data.also": "none"}


def test_the_places_of_a_run_are_those_of_its_data_and_weights(made_run: Any) -> None:
    config = json.loads(made_run.directory.config_path.read_text(encoding="utf-8"))
    config["data"] |= {"source": "/mnt/Ann Smith/photos", "also": ["/mnt/\u00e9t\u00e9,x/ann", "digits"]}
    config["init"] = "/srv/O'Neil and sons/old.safetensors"
    made_run.directory.config_path.write_text(json.dumps(config), encoding="utf-8")
    facts = read_facts(made_run.directory)
    said = facts.told(
        "/mnt/Ann Smith/photos: 3 copies, /mnt/Ann Smith/other.png, /mnt/\u00e9t\u00e9,x/ann/a.png is dark"
    )
    assert said == "photos: 3 copies, other.png, a.png is dark"
    assert facts.told(f"{made_run.path}/model.json and /srv/O'Neil and sons/old.safetensors") == (
        "model.json and old.safetensors"
    )
    table = dict(settings_table(facts.config, facts.places))
    assert (table["data.source"], table["init"]) == ("photos", "old.safetensors")
    assert table["data.also"] == "ann, digits"
