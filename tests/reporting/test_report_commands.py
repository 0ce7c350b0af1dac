import shlex
from dataclasses import replace
from typing import Any

import pytest

from vitrail.config import RunConfig, parse_assignments, with_settings
from vitrail.recipes import recipe_function
from vitrail.reporting.report_commands import needs_data, repeating_command, resuming_command, spelled_command
from vitrail.reporting.report_facts import RunFacts, read_facts


def facts_with(kept_run: Any, settings: dict[str, Any], **names: Any) -> RunFacts:
    config = with_settings(recipe_function("digits")(), settings).model_copy(update=names)
    return replace(read_facts(kept_run.directory), config=config.model_dump(mode="json"))


def rebuilt(command: str) -> RunConfig:
    """The config that a spelled command asks for, data apart."""
    words = shlex.split(command)
    settings = parse_assignments([words[place + 1] for place, word in enumerate(words) if word == "--set"])
    for option, key in (("--epochs", "training.epochs"), ("--seed", "seed")):
        if option in words:
            settings[key] = words[words.index(option) + 1]
    return with_settings(recipe_function(words[words.index("--recipe") + 1])(), settings)


def test_the_spelled_command_asks_for_the_same_settings(kept_run: Any) -> None:
    changed = {"training.batch_size": 16, "training.betas": (0.8, 0.95), "data.augment.crop_scale": (0.5, 1.0)}
    changed |= {"model.depth": 5, "model.class_token": True, "training.clip_norm": None, "data.group": "regex:a b$"}
    facts = facts_with(kept_run, {**changed, "seed": 7, "training.epochs": 3})
    command = spelled_command(facts)
    assert command is not None
    assert command.startswith("vitrail train digits --recipe digits --epochs 3 --seed 7 --set ")
    assert rebuilt(command).model_dump(mode="json") == facts.config


def test_what_follows_from_the_data_is_not_spelled(kept_run: Any) -> None:
    facts = facts_with(kept_run, {"model.num_classes": 5, "model.mean": [0.1], "model.std": [0.2], "model.in_chans": 1})
    assert spelled_command(facts) == "vitrail train digits --recipe digits --seed 0"


def test_data_of_this_machine_is_called_data(kept_run: Any) -> None:
    facts = facts_with(kept_run, {"data.source": "/home/ann/photos", "data.also": ["hf:owner/set", "x.csv"]})
    assert spelled_command(facts) == "vitrail train DATA hf:owner/set --recipe digits --seed 0"
    assert needs_data(facts)
    assert not needs_data(facts_with(kept_run, {}))


def test_time_model_and_weights_have_their_options(kept_run: Any) -> None:
    timed = facts_with(kept_run, {"training.time_seconds": 90.0})
    assert spelled_command(timed) == "vitrail train digits --recipe digits --time 90s --seed 0"
    named = facts_with(kept_run, {}, model_name="resnet18")
    assert "--model resnet18" in str(spelled_command(named))
    begun = facts_with(kept_run, {}, init="/home/ann/my weights.safetensors")
    assert "--init 'my weights.safetensors'" in str(spelled_command(begun))
    corrected = facts_with(kept_run, {"data.corrections": "0" * 64})
    assert "--corrections photos-digits-1/corrections.csv" in str(spelled_command(corrected))


def test_a_run_repeats_itself(kept_run: Any) -> None:
    assert repeating_command(read_facts(kept_run.directory)) == "vitrail train --recipe photos-digits-1"


@pytest.mark.parametrize("config", [{}, {"recipe": "gone", "training": {}}])
def test_an_unknown_recipe_has_no_command(kept_run: Any, config: dict[str, Any]) -> None:
    assert spelled_command(replace(read_facts(kept_run.directory), config=config)) is None


def test_names_are_one_word_of_a_command(kept_run: Any) -> None:
    named = replace(read_facts(kept_run.directory), name="my run; ls")
    assert shlex.split(repeating_command(named)) == ["vitrail", "train", "--recipe", "my run; ls"]
    assert shlex.split(resuming_command(named)) == ["vitrail", "train", "--resume", "--out", "my run; ls"]
