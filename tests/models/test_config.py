import re
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from vitrail.models.config import ImageModelConfig


class _Config(ImageModelConfig):
    kind: Literal["other"] = "other"


@pytest.mark.parametrize("size", [28, 28.0, [28], (28,), (28, 28), [28, 28]])
def test_one_number_is_rows_and_columns(size: Any) -> None:
    assert _Config(image_size=size).image_size == (28, 28)


@pytest.mark.parametrize("size", [0, (28, -1), (1, 2, 3), "large", 2.5, ()])
def test_impossible_sizes_are_refused(size: Any) -> None:
    with pytest.raises(ValidationError, match="image_size"):
        _Config(image_size=size)


def test_statistics_are_a_half_until_they_are_measured() -> None:
    assert _Config(in_chans=2).scaling() == ((0.5, 0.5), (0.5, 0.5))
    assert _Config(in_chans=2, std=(0.1, 0.2)).scaling() == ((0.5, 0.5), (0.1, 0.2))
    assert _Config(in_chans=1, mean=(0.3,)).scaling() == ((0.3,), (0.5,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (0.5,)}, "mean=0.5 is not one value a channel for in_chans=3; give 3"),
        ({"in_chans": 1, "std": (0.5, 0.25)}, "std=0.5,0.25 is not one value a channel for in_chans=1; give 1"),
    ],
)
def test_statistics_are_one_value_a_channel(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        _Config(**settings)


@pytest.mark.parametrize("settings", [{"std": (0.5, 0.0, 0.5)}, {"mean": (float("nan"),) * 3}, {"colour": 1}])
def test_what_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"[13] validation error"):
        _Config(**settings)


def test_a_config_is_frozen_and_survives_json() -> None:
    config = _Config(image_size=(8, 12), in_chans=1, mean=(0.1,), std=(1 / 3,))
    assert _Config.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.in_chans = 3
