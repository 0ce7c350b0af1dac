import signal
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vitrail import errors
from vitrail.errors import ConfigError, Interrupted, VitrailError, from_validation, nearest, suggest


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("VitrailError", 1),
        ("ConfigError", 2),
        ("DataError", 1),
        ("CheckpointError", 1),
        ("TrainingError", 1),
        ("ExportError", 1),
    ],
)
def test_an_error_has_its_exit_code(name: str, code: int) -> None:
    error = getattr(errors, name)("what was wrong")
    assert isinstance(error, VitrailError)
    assert error.exit_code == code
    assert str(error) == "what was wrong"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_exits_as_its_signal_does(number: int, code: int) -> None:
    error = Interrupted("stopped", number)
    assert isinstance(error, VitrailError)
    assert (str(error), error.exit_code) == ("stopped", code)
    assert Interrupted("stopped").exit_code == 130


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    subclasses = {error.__name__ for error in VitrailError.__subclasses__() if error.__module__ == errors.__name__}
    assert errors.__doc__ is not None
    assert subclasses == {line.split()[1] for line in errors.__doc__.splitlines() if line.startswith(("├", "└"))}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digit", "digits"),
        ("DIGITS", "digits"),
        ("cifr10", "cifar10"),
        ("fashon", "fashion_mnist"),
        ("vit_tniy", "vit_tiny_patch16_224"),
        ("imagenet", None),
        ("d", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested(name: str, near: str | None) -> None:
    valid = ["digits", "fashion_mnist", "cifar10", "cifar100", "vit_tiny_patch16_224"]
    assert nearest(name, valid) == near
    assert suggest(name, iter(valid)) == ("" if near is None else f" Did you mean {near!r}?")


def test_nothing_is_near_where_there_is_nothing() -> None:
    assert nearest("digits", []) is None
    assert suggest("digits", {}) == ""


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    steps: Annotated[int, Field(gt=0, le=9)] = 1
    kind: Literal["soft", "hard"] = "soft"
    pair: tuple[int, int] = (1, 2)
    name: str = ""
    on: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Inner":
        if self.kind == "hard" and self.steps == 1:
            raise ValueError("steps=1 is too few for kind='hard'; use steps=2")
        return self


class Outer(BaseModel):
    inner: Inner = Inner()
    needed: int


def sentence(model: type[BaseModel], values: object) -> str:
    with pytest.raises(ValidationError, match=r".") as raised:
        model.model_validate(values)
    error = from_validation(raised.value)
    assert isinstance(error, ConfigError)
    return str(error)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": -0.5}, "rate=-0.5 is not possible; use 0 or more"),
        ({"rate": 1}, "rate=1 is not possible; use a number less than 1"),
        ({"rate": "much"}, "rate='much' is not possible; use a number"),
        ({"rate": None}, "rate=None is not possible; use a number"),
        ({"rate": float("nan")}, "rate=nan is not possible; use a finite number"),
        ({"steps": 0}, "steps=0 is not possible; use a number greater than 0"),
        ({"steps": 10}, "steps=10 is not possible; use 9 or less"),
        ({"steps": 1.5}, "steps=1.5 is not possible; use a whole number"),
        ({"steps": "two"}, "steps='two' is not possible; use a whole number"),
        ({"steps": []}, "steps=[] is not possible; use a whole number"),
        ({"kind": "sotf"}, "kind='sotf' is not possible. Did you mean 'soft'? Use one of soft, hard"),
        ({"kind": 3}, "kind=3 is not possible. Use one of soft, hard"),
        ({"pair": 3}, "pair=3 is not possible; use a list of values"),
        ({"pair": [3]}, "pair=[3] is not possible; use more values"),
        ({"pair": [3, 4, 5]}, "pair=[3, 4, 5] is not possible; use 2 values"),
        ({"pair": [3, "x"]}, "pair='x' is not possible; use a whole number"),
        ({"name": 3}, "name=3 is not possible; use text"),
        ({"on": "perhaps"}, "on='perhaps' is not possible; use true or false"),
        ({"on": []}, "on=[] is not possible; use true or false"),
        ({"nmae": "x"}, "No setting is named 'nmae'"),
        ({"kind": "hard"}, "steps=1 is too few for kind='hard'; use steps=2"),
        ([], "[] is not possible; use an object of settings"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_says_what_to_use(values: object, message: str) -> None:
    assert sentence(Inner, values) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"rate": 2}, "needed": 1}, "inner.rate=2 is not possible; use a number less than 1"),
        ({"inner": {"pair": [1, "x"]}, "needed": 1}, "inner.pair='x' is not possible; use a whole number"),
        ({"inner": {"nmae": 2}, "needed": 1}, "No setting is named 'inner.nmae'"),
        ({"inner": 5, "needed": 1}, "inner=5 is not possible; use an object of settings"),
        ({}, "needed is missing"),
        (
            {"inner": {"kind": "hard"}, "needed": 1},
            "inner.steps=1 is too few for inner.kind='hard'; use inner.steps=2",
        ),
    ],
)
def test_settings_within_settings_have_their_full_names(values: object, message: str) -> None:
    assert sentence(Outer, values) == message


def test_a_kind_of_mistake_without_a_sentence_of_its_own_keeps_its_explanation() -> None:
    class Other(BaseModel):
        word: Annotated[str, Field(pattern="^a")]

    assert sentence(Other, {"word": "b"}) == "word='b' is not possible: String should match pattern '^a'"
