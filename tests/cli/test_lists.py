"""vitrail recipes, datasets"""

import pytest

from vitrail.config import settings_of
from vitrail.data.named import NAMED
from vitrail.recipes import RECIPES, recipe_function


def test_recipes(vitrail):
    done = vitrail("recipes")
    assert (done.code, done.err) == (0, "")
    heading, *lines = done.out.splitlines()
    assert heading.split() == ["recipe", "about"]
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert all(len(line.split()) > 3 for line in lines)
    about = vitrail("recipes", "--json").json["recipes"]
    assert list(about) == list(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_settings_of_a_recipe(vitrail, name):
    done = vitrail("recipes", name)
    assert (done.code, done.err) == (0, "")
    assert (recipe_function(name).__doc__ or "").splitlines()[0] == done.out.splitlines()[0]
    settings = list(settings_of(recipe_function(name)()))
    table = done.out[done.out.index("key ") :].splitlines()
    assert table[0].split() == ["key", "value", "type", "meaning"]
    assert [line.split()[0] for line in table[1:]] == [setting.key for setting in settings]
    for line, setting in zip(table[1:], settings, strict=True):
        assert setting.meaning
        assert setting.type
        assert line.endswith(f"  {setting.meaning}")
        assert f"  {setting.type}  " in line
    as_json = vitrail("recipes", name, "--json").json
    assert as_json["recipe"] == name
    assert [row["key"] for row in as_json["settings"]] == [setting.key for setting in settings]
    assert [{*row} for row in as_json["settings"]] == [{"key", "value", "type", "meaning"}] * len(settings)


def test_every_value_that_is_shown_can_be_set(vitrail):
    """What the second column says is what --set takes."""
    from vitrail.config import parse_assignments, with_settings

    table = vitrail("recipes", "digits").out
    config = recipe_function("digits")()
    lines = [line.split() for line in table[table.index("key ") :].splitlines()[1:]]
    shown = [f"{key}={value}" for key, value, *_ in lines if key not in ("recipe", "model_name", "init", "model.kind")]
    assert with_settings(config, parse_assignments(shown)) == config


def test_an_unknown_recipe(vitrail):
    done = vitrail("recipes", "digts", "--json")
    assert (done.code, done.error) == (
        2,
        "No recipe named 'digts'. Did you mean 'digits'? `vitrail recipes` lists them",
    )
    assert done.json["error"] == done.error


def test_datasets(vitrail):
    done = vitrail("datasets")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == list(NAMED)
    assert vitrail("datasets", "--json").json == {"datasets": {name: named.about for name, named in NAMED.items()}}
