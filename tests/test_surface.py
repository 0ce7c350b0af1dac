"""What `import vitrail` gives: the public names, each from where it is defined, none overwritten by a module."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import vitrail
from vitrail.errors import VitrailError

ROOT = Path(__file__).parents[1]
VERBS = [name for name in vitrail.__all__ if name.islower()]


def names_for_type_checkers() -> dict[str, str]:
    """The public names and their modules, as the block that only type checkers read has them."""
    tree = ast.parse(inspect.getsource(vitrail))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def modules() -> list[str]:
    found = pkgutil.walk_packages(vitrail.__path__, "vitrail.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def test_public_names_are_sorted_and_written_once() -> None:
    assert vitrail.__all__ == sorted({*vitrail.__all__})


def test_every_public_name_is_what_its_module_defines() -> None:
    exported = names_for_type_checkers()
    assert sorted(exported) == vitrail.__all__
    for name, module in exported.items():
        value = getattr(vitrail, name)
        assert value is getattr(import_module(module), name)
        assert value.__module__ == module, f"{name} is defined in {value.__module__}; hand it on from there"


def test_a_star_import_gives_the_public_names() -> None:
    given: dict[str, object] = {}
    exec("from vitrail import *", given)
    assert sorted({*given} - {"__builtins__"}) == vitrail.__all__


def test_public_names_are_listed() -> None:
    assert {*vitrail.__all__, "__version__"} <= {*dir(vitrail)}


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'vitrail' has no attribute 'trian'"):
        vitrail.trian  # noqa: B018
    assert not hasattr(vitrail, "__wrapped__")


def test_every_verb_is_callable_after_importing_every_module() -> None:
    assert len(modules()) > 30
    for module in modules():
        import_module(module)
    assert {"create_model", "evaluate", "load", "predict", "train"} <= {*VERBS}
    for verb in VERBS:
        assert inspect.isfunction(getattr(vitrail, verb)), f"vitrail.{verb} is {getattr(vitrail, verb)}"
    assert not [name for name in vitrail.__all__ if isinstance(getattr(vitrail, name), ModuleType)]


def test_every_public_name_says_what_it_is() -> None:
    for name in vitrail.__all__:
        value = getattr(vitrail, name)
        assert inspect.getdoc(value), name
        if name in VERBS:
            annotations = inspect.signature(value)
            assert annotations.return_annotation is not inspect.Signature.empty, name


def test_every_error_is_public() -> None:
    ours = [error for error in VitrailError.__subclasses__() if error.__module__.startswith("vitrail.")]
    assert {error.__name__ for error in ours} <= {*vitrail.__all__}


def test_the_version_is_the_distributions() -> None:
    assert vitrail.__version__ == version("vitrail")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert vitrail.__version__ == project["version"]
