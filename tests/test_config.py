import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from vitrail.cli.recipes import _cell
from vitrail.config import (
    RunConfig,
    TrainingConfig,
    config_from_json,
    config_to_json,
    differences,
    parse_assignments,
    parse_duration,
    parse_requirements,
    settings_of,
    with_settings,
)
from vitrail.errors import ConfigError
from vitrail.recipes import RECIPES, recipe_function

CONFIG = recipe_function("mnist")()


def value_of(config: RunConfig, key: str) -> Any:
    return next(setting.value for setting in settings_of(config) if setting.key == key)


def message_of(settings: dict[str, Any], config: RunConfig = CONFIG) -> str:
    with pytest.raises(ConfigError, match=r".") as raised:
        with_settings(config, settings)
    return str(raised.value)


# Text as values


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("training.epochs", "5", 5),
        ("training.epochs", "1e2", 100),
        ("training.learning_rate", "1e-4", 1e-4),
        ("training.learning_rate", "2", 2.0),
        ("training.clip_norm", "none", None),
        ("training.clip_norm", "None", None),
        ("training.clip_norm", "null", None),
        ("training.clip_norm", "0.5", 0.5),
        ("training.early_stop_epochs", "3", 3),
        ("training.betas", "0.8,0.95", (0.8, 0.95)),
        ("training.betas", "(0.8, 0.95)", (0.8, 0.95)),
        ("training.betas", "[0.8, 0.95]", (0.8, 0.95)),
        ("training.optimizer", "sgd", "sgd"),
        ("training.deterministic", "true", True),
        ("training.deterministic", "True", True),
        ("training.deterministic", "yes", True),
        ("training.deterministic", "0", False),
        ("model.qkv_bias", "off", False),
        ("model.image_size", "28,36", (28, 36)),
        ("model.image_size", "28x36", (28, 36)),
        ("model.image_size", "28 X 36", (28, 36)),
        ("model.image_size", "[28, 36]", (28, 36)),
        ("model.image_size", "28", (28, 28)),
        ("model.head_dim", "none", None),
        ("model.head_dim", "7", 7),
        ("model.pos_embed", "none", "none"),
        ("model.mean", "0.25", (0.25,)),
        ("model.mean", "0.25,", (0.25,)),
        ("model.mean", "none", None),
        ("data.source", "photos/cats and dogs", "photos/cats and dogs"),
        ("data.source", "2024", "2024"),
        ("data.source", "a,b", "a,b"),
        ("data.source", "none", "none"),
        ("data.fit", "crop", "crop"),
        ("data.augment.flip_rate", "0.5", 0.5),
        ("seed", "7", 7),
    ],
)
def test_text_becomes_a_value_of_the_settings_type(key: str, text: str, value: object) -> None:
    changed = value_of(with_settings(CONFIG, {key: text}), key)
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.betas", (0.8, 0.95)),
        ("training.clip_norm", None),
        ("training.deterministic", True),
        ("model.image_size", [28, 36]),
        ("model.pos_embed", "none"),
        ("data.augment.shift_pixels", 3.5),
    ],
)
def test_values_stay_what_they_are(key: str, value: object) -> None:
    changed = value_of(with_settings(CONFIG, {key: value}), key)
    assert changed == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_value_as_it_is_listed_sets_the_same_value(recipe: str) -> None:
    config = recipe_function(recipe)()
    named = ("recipe", "model_name", "model.kind", "init")  # options of their own
    listed = {setting.key: _cell(setting.value) for setting in settings_of(config) if setting.key not in named}
    assert with_settings(config, listed) == config


@settings(max_examples=20)
@given(st.floats(min_value=1e-12, max_value=1e12), st.integers(min_value=0, max_value=2**63), st.text(max_size=20))
def test_any_number_and_any_text_arrives_unchanged(rate: float, seed: int, source: str) -> None:
    changed = with_settings(CONFIG, {"training.learning_rate": str(rate), "seed": str(seed), "data.source": source})
    assert (changed.training.learning_rate, changed.seed, changed.data.source) == (rate, seed, source)
    assert config_from_json(config_to_json(changed)) == changed


def test_several_settings_are_checked_together() -> None:
    changed = with_settings(
        CONFIG, {"model.stem": "linear", "model.patch_size": "7", "model.embed_dim": "65"} | {"model.num_heads": "5"}
    )
    assert (changed.model.stem, changed.model.patch_size, changed.model.embed_dim) == ("linear", (7, 7), 65)


def test_the_old_config_stays() -> None:
    before = config_to_json(CONFIG)
    with_settings(CONFIG, {"training.epochs": 99, "model.depth": 9, "data.augment.flip_rate": 0.5})
    assert config_to_json(CONFIG) == before


# Unknown keys


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("batchsize", "training.batch_size"),
        ("training.batchsize", "training.batch_size"),
        ("epochs", "training.epochs"),
        ("learning_rate", "training.learning_rate"),
        ("learning", "training.learning_rate"),
        ("train.epochs", "training.epochs"),
        ("image_size", "model.image_size"),
        ("model.imagesize", "model.image_size"),
        ("depht", "model.depth"),
        ("Seed", "seed"),
        ("model.seed", "seed"),
        ("flip", "data.augment.flip_rate"),
        ("augment.flip_rate", "data.augment.flip_rate"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, near: str) -> None:
    assert message_of({key: "1"}) == (
        f"No setting named {key!r}. Did you mean {near!r}? `vitrail recipes mnist` lists them all"
    )


@pytest.mark.parametrize("key", ["qqq", "", "."])
def test_an_unknown_key_like_no_other_has_no_suggestion(key: str) -> None:
    assert message_of({key: "1"}) == f"No setting named {key!r}. `vitrail recipes mnist` lists them all"


@pytest.mark.parametrize("key", ["model", "training", "training.", "data.augment"])
def test_a_group_is_no_setting(key: str) -> None:
    message = message_of({key: "1"})
    assert re.fullmatch(rf"No setting named '{key}'\. It is a group; name a setting in it, such as '{key}.*", message)


@pytest.mark.parametrize(("key", "option"), [("recipe", "--recipe"), ("model_name", "--model")])
def test_a_name_cannot_be_changed_without_what_it_names(key: str, option: str) -> None:
    assert message_of({key: "digits"}) == (f"{key} is a name, which comes with its settings; choose it with {option}")


# Wrong values


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("training.learning_rate", "-1", "training.learning_rate=-1 is not possible; use a number greater than 0"),
        ("training.learning_rate", "fast", "training.learning_rate='fast' is not possible; use a number"),
        ("training.learning_rate", "nan", "training.learning_rate=nan is not possible; use a finite number"),
        ("training.learning_rate", "1e999", "training.learning_rate=inf is not possible; use a finite number"),
        (
            "training.optimizer",
            "adma",
            "training.optimizer='adma' is not possible. Did you mean 'adam'? Use one of adamw, muon, adam, sgd",
        ),
        (
            "training.optimizer",
            "lamb",
            "training.optimizer='lamb' is not possible. Use one of adamw, muon, adam, sgd",
        ),
        ("training.optimizer", "5", "training.optimizer='5' is not possible. Use one of adamw, muon, adam, sgd"),
        ("training.epochs", "0", "training.epochs=0 is not possible; use a number greater than 0"),
        ("training.epochs", "2.5", "training.epochs=2.5 is not possible; use a whole number"),
        ("training.epochs", "many", "training.epochs='many' is not possible; use a whole number"),
        ("training.epochs", "none", "training.epochs='none' is not possible; use a whole number"),
        ("training.epochs", "true", "training.epochs='true' is not possible; use a whole number"),
        ("training.epochs", "", "training.epochs='' is not possible; use a whole number"),
        ("training.betas", "0.9", "training.betas=[0.9] is not possible; use more values"),
        ("training.betas", "0.9,1.5", "training.betas=1.5 is not possible; use a number less than 1"),
        ("training.betas", "0.9,0.99,1", "training.betas=[0.9, 0.99, 1] is not possible; use 2 values"),
        ("training.clip_norm", "0", "training.clip_norm=0 is not possible; use a number greater than 0"),
        ("training.deterministic", "maybe", "training.deterministic='maybe' is not possible; use true or false"),
        ("training.label_smoothing", "1", "training.label_smoothing=1 is not possible; use a number less than 1"),
        ("training.warmup_rate", "-0.1", "training.warmup_rate=-0.1 is not possible; use 0 or more"),
        ("training.compile", "yes", "training.compile='yes' is not possible. Use one of auto, on, off"),
        ("data.validation_rate", "1", "data.validation_rate=1 is not possible; use a number less than 1"),
        ("data.fit", "stretch", "data.fit='stretch' is not possible. Use one of auto, pad, crop, squash, native"),
        ("data.augment.flip_rate", "2", "data.augment.flip_rate=2 is not possible; use 1 or less"),
        ("data.augment.rotate_degrees", "181", "data.augment.rotate_degrees=181 is not possible; use 180 or less"),
        ("data.augment.mixup_alpha", "inf", "data.augment.mixup_alpha=inf is not possible; use a finite number"),
        ("seed", "-1", "seed=-1 is not possible; use 0 or more"),
        ("model.image_size", "0x28", "model.image_size=0 is not possible; use a number greater than 0"),
        ("model.image_size", "max", "model.image_size='max' is not possible; use a whole number"),
        ("model.image_size", "28,28,1", "model.image_size=[28, 28, 1] is not possible; use 2 values"),
        ("model.drop_rate", "1", "model.drop_rate=1 is not possible; use a number less than 1"),
        ("model.std", "0", "model.std=0 is not possible; use a number greater than 0"),
        (
            "model.patch_size",
            "7",
            "model.patch_size=7x7 is not possible with model.stem='conv'; use 4, 8, 16 or 32",
        ),
        (
            "model.mean",
            "0.5,0.5",
            "model.mean=0.5,0.5 is not one value a channel for model.in_chans=1; give 1",
        ),
        (
            "model.num_heads",
            "5",
            "model.embed_dim=64 is not a multiple of model.num_heads=5; change one of them, or give head_dim",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_key_and_value(key: str, text: str, message: str) -> None:
    assert message_of({key: text}) == message


def test_an_image_size_that_does_not_divide_names_the_two_nearest() -> None:
    message = message_of({"model.image_size": "30", "model.patch_size": "4"}, recipe_function("s5_vit_mnist")())
    assert message == (
        "model.image_size=30 is not a multiple of model.patch_size=4; use 28 or 32, or another patch_size"
    )


@pytest.mark.parametrize(("accumulate", "best"), [(3, 2), (63, 32), (65, 64), (10**15, 64)])
def test_micro_batches_must_divide_the_batch(accumulate: int, best: int) -> None:
    assert message_of({"training.accumulate": accumulate}) == (
        f"training.batch_size=64 is not a multiple of training.accumulate={accumulate}; use training.accumulate={best}"
    )
    assert with_settings(CONFIG, {"training.accumulate": best}).training.accumulate == best


def test_every_message_is_one_sentence_without_a_full_stop() -> None:
    wrong = {
        "training.epochs": "many",
        "training.optimizer": "adma",
        "model.num_heads": "5",
        "training.accumulate": "3",
    }
    for key, text in wrong.items():
        message = message_of({key: text})
        assert "\n" not in message
        assert not message.endswith(".")
        assert "input" not in message.lower()


# A config cannot change


def test_a_config_is_frozen_at_every_depth() -> None:
    places: list[tuple[BaseModel, str]] = [
        (CONFIG, "seed"),
        (CONFIG.data, "source"),
        (CONFIG.data.augment, "flip_rate"),
        (CONFIG.model, "depth"),
        (CONFIG.training, "epochs"),
    ]
    for part, name in places:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, getattr(part, name))


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="epoch"):
        TrainingConfig(epoch=3)  # pyright: ignore[reportCallIssue]


# Settings as they are listed


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_key_has_a_meaning_and_a_readable_type(recipe: str) -> None:
    settings = list(settings_of(recipe_function(recipe)()))
    assert len({setting.key for setting in settings}) == len(settings) > 50
    for setting in settings:
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", setting.key)
        assert len(setting.meaning) > 10, setting.key
        assert not setting.meaning.endswith("."), setting.key
        assert "\n" not in setting.meaning, setting.key
        readable = r"(text|int|float|true or false|one of [\w, ]+|\((int|float|text), (int|float|\.\.\.)\))( or none)?"
        assert re.fullmatch(readable, setting.type), setting


@pytest.mark.parametrize(
    ("key", "value", "type_name"),
    [
        ("recipe", "mnist", "text"),
        ("seed", 0, "int"),
        ("data.augment.shift_pixels", 2.0, "float"),
        ("training.optimizer", "muon", "one of adamw, muon, adam, sgd"),
        ("training.betas", (0.9, 0.999), "(float, float)"),
        ("training.clip_norm", None, "float or none"),
        ("training.deterministic", False, "true or false"),
        ("model.image_size", (28, 28), "(int, int)"),
        ("model.mean", None, "(float, ...) or none"),
    ],
)
def test_a_setting_is_listed_with_value_and_type(key: str, value: object, type_name: str) -> None:
    found = next(setting for setting in settings_of(CONFIG) if setting.key == key)
    assert (found.value, found.type) == (value, type_name)


def test_every_setting_is_listed() -> None:
    def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    assert [setting.key for setting in settings_of(CONFIG)] == [*leaves(CONFIG.model_dump())]


# JSON


@pytest.mark.parametrize("recipe", RECIPES)
def test_json_gives_an_equal_config_back(recipe: str) -> None:
    config = recipe_function(recipe)()
    mean = [1 / 3] * config.model.in_chans
    config = with_settings(config, {"model.mean": mean, "model.std": mean, "training.betas": (0.1, 0.2)})
    text = config_to_json(config)
    assert config_from_json(text) == config
    assert config_to_json(config_from_json(text)) == text
    assert json.loads(text)["model"]["image_size"] == [*config.model.image_size]
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ("[]", "[] is not possible; use an object of settings"),
        ("{}", "recipe is missing"),
        (config_to_json(CONFIG).replace('"epochs": 4', '"epochs": -4'), "training.epochs=-4 is not possible"),
        (config_to_json(CONFIG).replace('"epochs"', '"epoch"'), "No setting is named 'training.epoch'"),
        (config_to_json(CONFIG).replace('"seed": 0', '"seed": NaN'), "seed=nan is not possible"),
    ],
)
def test_text_that_is_no_config_is_refused_by_its_path(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)) as raised:
        config_from_json(text, "runs/a/config.json")
    assert str(raised.value).startswith("runs/a/config.json is not a run's config: ")


# Differences


def test_differences_are_listed_one_a_key() -> None:
    changed = with_settings(CONFIG, {"training.epochs": 7, "model.image_size": "32", "data.augment.flip_rate": "0.5"})
    assert differences(CONFIG, changed) == [
        "data.augment.flip_rate: 0.0 -> 0.5",
        "model.image_size: (28, 28) -> (32, 32)",
        "training.epochs: 4 -> 7",
    ]
    assert differences(changed, changed) == []


# Arguments of the command line


def test_assignments_are_keys_and_texts() -> None:
    given = ["training.epochs=5", " data.source = a=b ", "model.mean="]
    assert parse_assignments(given) == {"training.epochs": "5", "data.source": "a=b", "model.mean": ""}
    assert parse_assignments([]) == {}


@pytest.mark.parametrize("assignment", ["training.epochs", "", "=5", " =5"])
def test_an_assignment_without_a_key_or_equals_is_refused(assignment: str) -> None:
    message = f"--set {assignment!r} is not of the form key=value, such as --set training.epochs=5"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_assignments(["seed=1", assignment])


def test_requirements_are_names_and_numbers() -> None:
    assert parse_requirements(["accuracy=0.95", " loss = 1e-3"]) == {"accuracy": 0.95, "loss": 0.001}


@pytest.mark.parametrize("requirement", ["accuracy", "", "=0.5", "accuracy=", "accuracy=high", "accuracy=nan"])
def test_a_requirement_that_is_no_name_and_number_is_refused(requirement: str) -> None:
    message = f"--require {requirement!r} is not of the form name=number, such as accuracy=0.95"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_requirements([requirement])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2.5m", 150), ("1h30m", 5400), ("1h 1m 1s", 3661), ("0.5H", 1800), ("36000s", 36000)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["10", " 2.5 ", "1e3"])
def test_a_duration_without_unit_is_refused(text):
    with pytest.raises(ConfigError, match=r"^--time '.*' has no unit; add s, m or h, such as [\d.e]+m$"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "m", "10x", "10min", "-5m", "30m1h", "1.m", "ten minutes"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match=r"^--time '.*' is not a time; write it as 90s, 10m or 1h30m$"):
        parse_duration(text)
