"""Recipes: functions that return one complete RunConfig. A recipe is read, compared and changed like any object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vitrail.errors import ConfigError, suggest

if TYPE_CHECKING:
    from vitrail.config import RunConfig

# A name -> where its function is. Written out, so that listing recipes imports none.
RECIPES: dict[str, str] = {
    "alexnet_cifar10": "vitrail.recipes.cnn",
    "attention2d_cifar10": "vitrail.recipes.cifar10",
    "cct_cifar10": "vitrail.recipes.cnn",
    "digits": "vitrail.recipes.digits",
    "finetune": "vitrail.recipes.finetune",
    "mnist": "vitrail.recipes.mnist",
    "photos": "vitrail.recipes.photos",
    "resnet18_cifar10": "vitrail.recipes.cnn",
    "s1_attention2d_cifar10": "vitrail.recipes.cifar10",
    "s2_shallow_vit_mnist": "vitrail.recipes.mnist",
    "s3_vit_256": "vitrail.recipes.photos",
    "s4_alexnet_cifar10": "vitrail.recipes.cnn",
    "s4_resnet18_cifar10": "vitrail.recipes.cnn",
    "s5_vit_mnist": "vitrail.recipes.mnist",
    "s5_wide_heads_vit_mnist": "vitrail.recipes.mnist",
}


def recipe_function(name: str) -> Callable[[], RunConfig]:
    """The function of the recipe called `name`. Raises ConfigError, with the nearest valid name, for an unknown one."""
    from importlib import import_module

    if name not in RECIPES:
        raise ConfigError(f"No recipe named {name!r}.{suggest(name, RECIPES)} `vitrail recipes` lists them")
    return getattr(import_module(RECIPES[name]), name)


def recipe_for(dataset: str, image_size: tuple[int, int], channels: int = 1) -> str:
    """The recipe of a data set where none is named: its own, else the one made for images of about that size."""
    if dataset in RECIPES and dataset != "photos":  # a folder of that name may hold anything
        return dataset
    if channels == 3 and max(image_size) > 32:
        return "photos"
    return "digits" if max(image_size) <= 12 else "mnist"
