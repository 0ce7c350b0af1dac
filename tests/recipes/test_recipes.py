import re
from importlib import import_module

import pytest

from vitrail.config import RunConfig, config_from_json, config_to_json
from vitrail.data.named import NAMED
from vitrail.errors import ConfigError
from vitrail.models import MODELS, model_config
from vitrail.recipes import RECIPES, recipe_for, recipe_function


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_complete_config(name: str) -> None:
    config = recipe_function(name)()
    assert isinstance(config, RunConfig)
    assert config.recipe == name
    assert config.model_name in MODELS
    assert config.model == model_config(config.model_name, mean=config.model.mean, std=config.model.std)
    assert config.data.source in {*NAMED, "photos"}
    assert recipe_function(name)() == config
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_it_is_called(name: str) -> None:
    function = recipe_function(name)
    assert function.__name__ == name
    assert function.__module__ == RECIPES[name]
    lines = (function.__doc__ or "").splitlines()
    assert re.fullmatch(r"[A-Z].*\.", lines[0])
    command = next(line.strip() for line in lines if line.strip().startswith("vitrail train"))
    source = "" if name == "digits" else f" {function().data.source}"  # digits is what is trained on without DATA
    option = "" if name in {*NAMED, "photos"} else f" --recipe {name}"  # a recipe that is found needs no name
    if name == "finetune":  # found by its weights
        option = " --init timm:vit_tiny_patch16_224"
    assert command == f"vitrail train{source}{option}"


@pytest.mark.parametrize("name", RECIPES)
def test_settings_that_were_copied_in_are_valid(name: str) -> None:
    config = recipe_function(name)()
    assert RunConfig.model_validate(config.model_dump()) == config


def test_every_function_of_a_recipe_file_is_in_the_table() -> None:
    for path in {*RECIPES.values()}:
        module = import_module(path)
        functions = {
            name for name, value in vars(module).items() if getattr(value, "__module__", "") == path and callable(value)
        }
        assert functions == {name for name in RECIPES if RECIPES[name] == path}


@pytest.mark.parametrize(("name", "near"), [("mnsit", "mnist"), ("digit", "digits"), ("s5_vit", "s5_vit_mnist")])
def test_an_unknown_recipe_is_refused_with_the_nearest(name: str, near: str) -> None:
    message = f"No recipe named {name!r}. Did you mean {near!r}? `vitrail recipes` lists them"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        recipe_function(name)


@pytest.mark.parametrize(
    ("dataset", "shape", "recipe"),
    [
        ("digits", (8, 8, 1), "digits"),
        ("mnist", (28, 28, 1), "mnist"),
        ("mnist", (480, 640, 3), "mnist"),
        ("fashion_mnist", (28, 28, 1), "mnist"),
        ("cifar10", (32, 32, 3), "mnist"),
        ("photos", (8, 12, 3), "digits"),
        ("photos", (8, 13, 3), "mnist"),
        ("photos", (480, 640, 1), "mnist"),
        ("photos", (480, 640, 3), "photos"),
        ("holidays", (32, 33, 3), "photos"),
    ],
)
def test_data_without_a_recipe_takes_the_one_for_its_size(
    dataset: str, shape: tuple[int, int, int], recipe: str
) -> None:
    rows, columns, channels = shape
    assert recipe_for(dataset, (rows, columns), channels) == recipe
