"""The families of models, told apart by `kind` in runs' configs and model cards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vitrail.checkpoint import ModelCard, read_card, save_card
from vitrail.config import RunConfig, config_from_json, config_to_json, settings_of, with_settings
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, ConfigError
from vitrail.models import MODELS, build_model, model_config
from vitrail.models.families import FAMILIES
from vitrail.models.vit_config import ViTConfig
from vitrail.recipes import recipe_function

KINDS = ", ".join(FAMILIES)
# The first named model of each family that has one.
NAMED = {
    kind: next(name for name in MODELS if MODELS[name].get("kind", "vit") == kind)
    for kind in dict.fromkeys(settings.get("kind", "vit") for settings in MODELS.values())
}


def run_of(name: str) -> RunConfig:
    return RunConfig(recipe="mnist", model_name=name, model=model_config(name))


def card_of(name: str) -> ModelCard:
    preprocess = Preprocess.model_validate({"image_size": (32, 32), "channels": 3, "fit": "pad"})
    return ModelCard(model_name=name, model=model_config(name), classes=("a", "b"), preprocess=preprocess)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_is_called_by_its_kind(kind: str) -> None:
    assert FAMILIES[kind].config.model_fields["kind"].default == kind


@pytest.mark.parametrize("kind", NAMED)
def test_a_runs_config_comes_back_from_json_as_its_family(kind: str) -> None:
    config = run_of(NAMED[kind])
    back = config_from_json(config_to_json(config))
    assert back == config
    assert type(back.model) is FAMILIES[kind].config
    assert json.loads(config_to_json(config))["model"]["kind"] == kind


@pytest.mark.parametrize("kind", NAMED)
def test_a_model_card_comes_back_from_its_file_as_its_family(kind: str, tmp_path: Path) -> None:
    save_card(tmp_path, card_of(NAMED[kind]))
    card = read_card(tmp_path)
    assert card == card_of(NAMED[kind])
    assert type(card.model) is FAMILIES[kind].config


@pytest.mark.parametrize("kind", ["vit", "attention2d"])
def test_a_config_is_built_by_its_family(kind: str) -> None:
    small = {"image_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
    config = FAMILIES[kind].config.model_validate(small)
    assert type(build_model(config)) is FAMILIES[kind].module  # type: ignore[arg-type]


def test_configs_from_before_there_were_kinds_are_vits() -> None:
    tree = json.loads(config_to_json(run_of("s5_vit")))
    del tree["model"]["kind"]
    assert config_from_json(json.dumps(tree)) == run_of("s5_vit")
    card = json.loads(card_of("s5_vit").model_dump_json())
    del card["model"]["kind"]
    assert ModelCard.model_validate(card) == card_of("s5_vit")


@pytest.mark.parametrize("kind", ["resnet", "", None, 3, ["a"]])
def test_an_unknown_kind_is_refused_in_one_sentence(kind: Any) -> None:
    tree = json.loads(config_to_json(run_of("s5_vit")))
    tree["model"]["kind"] = kind
    message = f"runs/a/config.json is not a run's config: model.kind={kind!r} is not possible. Use one of {KINDS}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        config_from_json(json.dumps(tree), "runs/a/config.json")


def test_a_slip_in_a_kind_is_told_the_nearest() -> None:
    with pytest.raises(ValidationError, match=r"kind='atention2d' is not possible. Did you mean 'attention2d'\?"):
        RunConfig.model_validate({"recipe": "", "model_name": "", "model": {"kind": "atention2d"}})


def test_a_card_of_an_unknown_kind_is_refused_with_its_path(tmp_path: Path) -> None:
    text = card_of("s1_attention2d").model_dump_json()
    (tmp_path / "model.json").write_text(text.replace('"attention2d"', '"attention3d"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.json is damaged: .*kind='attention3d' is not possible"):
        read_card(tmp_path)


@pytest.mark.parametrize("model", [3, "vit", [], None])
def test_what_is_no_config_is_refused(model: Any) -> None:
    tree = {**json.loads(config_to_json(run_of("s5_vit"))), "model": model}
    with pytest.raises(
        ConfigError, match=rf"model={re.escape(repr(model))} is not possible; use an object of settings"
    ):
        config_from_json(json.dumps(tree))


# --set


def refusal(change: Callable[[], object]) -> str:
    with pytest.raises(ConfigError, match=r".") as raised:
        change()
    return str(raised.value)


def test_settings_are_those_of_the_models_own_family() -> None:
    config = recipe_function("attention2d_cifar10")()
    keys = {setting.key for setting in settings_of(config)}
    assert {"model.final_norm", "model.kind"} <= keys
    assert "model.class_token" not in keys
    changed = with_settings(config, {"model.depth": "2", "model.final_norm": "false"})
    assert changed.model == model_config(config.model_name, depth=2, final_norm=False)


def test_a_setting_of_another_family_is_refused_with_the_nearest_of_its_own() -> None:
    config = recipe_function("attention2d_cifar10")()
    message = refusal(lambda: with_settings(config, {"model.qkv_bias": "true"}))
    assert message.startswith("No setting named 'model.qkv_bias'. Did you mean 'model.bias'?")
    message = refusal(lambda: with_settings(config, {"model.class_token": "true"}))
    assert message.startswith("No setting named 'model.class_token'.")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.num_heads", "5", "model.embed_dim=64 is not a multiple of model.num_heads=5; change one of them"),
        ("model.depth", "0", "model.depth=0 is not possible; use a number greater than 0"),
        ("model.kind", "vit", "model.kind is a name, which comes with its settings; choose it with --model"),
    ],
)
def test_mistakes_name_settings_without_the_family(key: str, value: str, message: str) -> None:
    config = recipe_function("attention2d_cifar10")()
    assert refusal(lambda: with_settings(config, {key: value})) == message


def test_a_model_of_another_family_replaces_the_recipes() -> None:
    config = recipe_function("mnist")()
    assert isinstance(config.model, ViTConfig)
    other = config.model_copy(update={"model_name": "s1_attention2d", "model": model_config("s1_attention2d")})
    assert config_from_json(config_to_json(other)).model.kind == "attention2d"


def test_the_families_load_neither_a_compiler_nor_other_libraries() -> None:
    code = (
        "import sys, vitrail.models.families; print({'torch._dynamo', 'torch._inductor', 'timm', 'torchvision'} & "
        "sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
