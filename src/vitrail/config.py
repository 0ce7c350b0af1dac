"""RunConfig: everything that defines a run, in one frozen object that is checked when it is made.

Every field's meaning is the string under it; `vitrail recipes NAME` prints them, `--set key=value` changes them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vitrail.data.augment import AugmentConfig
from vitrail.errors import ConfigError, from_validation, nearest
from vitrail.models.families import AnyModelConfig
from vitrail.models.vit_config import ViTConfig

PositiveInt = Annotated[int, Field(gt=0)]


class DataConfig(BaseModel):
    """Which images, how they are split, and what training changes about them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    source: str = "digits"
    """a named set, a folder or a table of images"""
    validation_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """part of the images to draw from held out to choose the best epoch, where no validation split is published"""
    test_rate: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """part of all images held out for the final test, where no test split is published"""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """seed of the splits; apart from `seed`, so that seeds can be compared over one split"""
    fold: Annotated[str, Field(pattern=r"^\d+/\d+$")] | None = None
    """one of k folds in place of drawn splits, as 2/5: that fold is the test, the next validation; none: by rates"""
    fit: Literal["auto", "pad", "crop", "squash", "native"] = "auto"
    """how images of another shape become image_size: pad, crop, squash or native; auto: by the shapes of the images"""
    crop_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """with fit=crop, the part of the shorter side that is kept; published models have 0.875 to 1"""
    image_column: str | None = None
    """column of a table's paths, URLs or bytes; none: image, file_name, path, ..., whichever is there"""
    label_column: str | None = None
    """column of a table's labels, text, whole numbers or lists of them; none: label, class, ..., whichever is there"""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """what stands between several labels of one image in a table's text, such as |; none: a text is one label"""
    split_column: str | None = None
    """column of a table that says train, validation or test; none: split, if it is there"""
    group_column: str | None = None
    """column of a table whose equal values never stand in two splits; none: no such column"""
    group: str | None = None
    """which images stay in one split: folder, column, exif_time or regex:PATTERN; none: equal and nearly equal ones"""
    also: tuple[str, ...] = ()
    """further data joined to it"""
    corrections: str | None = None
    """content hash of the file of corrections, which the run keeps"""
    num_workers: PositiveInt | None = None
    """threads that read image files; none: one for each core"""
    max_broken_rate: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """part of a split's files that may be unreadable; those are left out, with more training does not start"""
    serving: Literal["auto", "memory", "mapped", "stream"] = "auto"
    """where training images are kept: in memory, decoded in a file, or not at all; auto: the first that has room"""
    memory_gigabytes: Annotated[float, Field(ge=0)] | None = None
    """most that decoded training images may take in memory; none: a quarter of what is free"""
    cache_gigabytes: Annotated[float, Field(ge=0)] | None = None
    """most that they may take on the disk; none: half of what is free there"""
    preview: bool = False
    """draw the first training batch, as the model sees it, into figures/batch.png"""
    augment: AugmentConfig = AugmentConfig()
    """what is changed about training images"""


class TrainingConfig(BaseModel):
    """How the weights are found."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    epochs: PositiveInt = 20
    """passes over the training images; not looked at where time_seconds is set"""
    time_seconds: Annotated[float, Field(gt=0)] | None = None
    """wall time from the command's start to the saved model, which the steps are planned to fill; none: epochs count"""
    batch_size: PositiveInt = 64
    """images of one optimizer step, over all micro-batches; a smaller training set is one batch"""
    accumulate: PositiveInt = 1
    """micro-batches a step is computed in, to save memory; batch_size must be a multiple"""
    optimizer: Literal["adamw", "muon", "adam", "sgd"] = "adamw"
    """adamw, muon (with adamw for the stem, the head and vectors), adam or sgd"""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """highest learning rate"""
    warmup_rate: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """part of training in which the learning rate rises from zero"""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """how the learning rate falls after warm-up"""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """learning rate at the end, as a part of the highest"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """decoupled weight decay of matrices (adam and sgd: as an L2 penalty)"""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """decay of adam's and adamw's running means"""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """momentum of muon and sgd"""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """largest norm of the whole gradient; none: not clipped"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """part of each target spread evenly over all classes"""
    imbalance: Literal["auto", "none", "class_weights", "balanced_sampling", "focal", "logit_adjusted"] = "auto"
    """what is done about rare classes; auto: by the counts of the training images"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """decay of the running mean of weights that is evaluated and kept; 0: the weights themselves"""
    early_stop_epochs: PositiveInt | None = None
    """stop after this many epochs without a better validation accuracy, or an equal one at a lower loss; none: never"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of forward and backward; auto: bfloat16 on CUDA, else float32"""
    deterministic: bool = False
    """refuse operations without a deterministic form, for bitwise resume on GPUs; the CPU needs it not"""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: only when what is left of the run is long enough to repay compiling"""
    log_steps: PositiveInt = 50
    """steps between lines in metrics.jsonl; the last step has one too"""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    """seconds between checkpoints, besides those at each epoch's end"""
    tracker: Literal["none", "mlflow", "wandb"] = "none"
    """where metrics go besides the run's directory; they leave the machine only where that tool is set up to send"""

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.batch_size % self.accumulate:
            smaller = range(1, min(self.accumulate, self.batch_size + 1))
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of accumulate={self.accumulate}; "
                f"use accumulate={max(number for number in smaller if self.batch_size % number == 0)}"
            )
        return self


class EvaluationConfig(BaseModel):
    """What is said of the trained model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    reject: Annotated[float, Field(gt=0, lt=1)] | None = None
    """accuracy wanted of the answers given, by validation; less sure predictions say "not sure"; none: all count"""
    bootstrap_samples: PositiveInt = 2000
    """resamples behind the bootstrap intervals"""
    report: bool = True
    """write report.html and README.md, a model card, into the run"""


class RunConfig(BaseModel):
    """One run: data, model, training and evaluation. Equal configs on equal data give equal weights on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    recipe: str
    """name of the recipe this began as"""
    model_name: str
    """name of the model, as `vitrail models` lists it"""
    seed: Annotated[int, Field(ge=0)] = 0
    """seed of weights, order, augmentation and dropout"""
    init: str | None = None
    """weights that training begins with, as --init names them; none: random ones"""
    data: DataConfig = DataConfig()
    """which images"""
    model: AnyModelConfig = ViTConfig()
    """which network"""
    training: TrainingConfig = TrainingConfig()
    """how it is trained"""
    evaluation: EvaluationConfig = EvaluationConfig()
    """what is said of it"""


class Setting(NamedTuple):
    """One line of `vitrail recipes NAME`."""

    key: str
    value: Any
    type: str
    meaning: str


def settings_of(config: BaseModel, prefix: str = "") -> Iterator[Setting]:
    """Every key of a config with its value, type and meaning, nested keys dotted."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            yield Setting(prefix + name, value, _type_name(field.annotation), field.description or "")


def _type_name(annotation: Any) -> str:
    """A type as a user reads it: `int`, `one of adamw, sgd`, `int or none`, `(int, int)`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "none"
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        inside = ["..." if argument is Ellipsis else _type_name(argument) for argument in arguments]
        return f"({', '.join(inside)})"
    if arguments:
        return " or ".join(_type_name(argument) for argument in arguments)
    name: str = annotation.__name__
    return {"str": "text", "bool": "true or false"}.get(name, name)


_OPTIONS = {"recipe": "--recipe", "model_name": "--model", "model.kind": "--model", "init": "--init"}


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The config with dotted keys changed: {"training.batch_size": 128, "model.depth": "6"}; text is parsed by type.

    Raises ConfigError for an unknown key (with the nearest valid one), a value of the wrong type or out of range.
    """
    tree = config.model_dump()
    types = {setting.key: setting.type for setting in settings_of(config)}
    for key, value in settings.items():
        if key not in types:
            raise ConfigError(
                f"No setting named {key!r}.{_nearest_key(key, list(types))} "
                f"`vitrail recipes {config.recipe}` lists them all"
            )
        if key in _OPTIONS:
            raise ConfigError(f"{key} is a name, which comes with its settings; choose it with {_OPTIONS[key]}")
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[leaf] = _parse(value, types[key]) if isinstance(value, str) else value
    return _validate(tree)


def _nearest_key(key: str, valid: list[str]) -> str:
    """A suggestion by its last part, else by the whole key: `batchsize` should find `training.batch_size`."""
    group = [name for name in valid if name.startswith(key.rstrip(".") + ".")]
    if group:
        return f" It is a group; name a setting in it, such as {group[0]!r}."
    by_leaf = {name.rpartition(".")[2]: name for name in valid}
    leaf = nearest(key.rpartition(".")[2], by_leaf)
    near = nearest(key, valid) if leaf is None else by_leaf[leaf]
    return "" if near is None else f" Did you mean {near!r}?"


def _parse(text: str, wanted: str) -> Any:
    """Text from the command line as a value of a setting's type; text that does not fit stays text, to be refused.

    `none` where a value may be left out; 28,28 or 28x28 or [28, 28] or a single number where several are wanted.
    """
    if wanted.endswith(" or none") and text.lower() in {"none", "null"}:
        return None
    if wanted.startswith(("text", "one of", "true or false")):
        return text
    if wanted.startswith("(text"):
        return [] if text.lower() == "none" else [part.strip() for part in text.split(",")]
    if wanted.startswith("("):
        parts = re.sub(r"(?<=\d)\s*x\s*(?=\d)", ",", text.lower()).strip("()[] ").split(",")
        return [_number(part.strip()) for part in parts if part.strip()]
    return _number(text)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`["training.epochs=5"]` -> `{"training.epochs": "5"}`. Raises ConfigError where a `=` is missing."""
    settings: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r} is not of the form key=value, such as --set training.epochs=5")
        settings[key.strip()] = value.strip()
    return settings


def parse_requirements(requirements: list[str]) -> dict[str, float]:
    """`["accuracy=0.95"]` -> `{"accuracy": 0.95}`. Raises ConfigError where it is not a name and a number."""
    wanted: dict[str, float] = {}
    for requirement in requirements:
        name, equals, value = requirement.partition("=")
        try:
            wanted[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip() or not math.isfinite(wanted[name.strip()]):
            raise ConfigError(f"--require {requirement!r} is not of the form name=number, such as accuracy=0.95")
    return wanted


def parse_duration(text: str) -> float:
    """`"10m"` -> 600.0 seconds; also 90s, 2.5m, 1h30m. Raises ConfigError where it is no time, or has no unit."""
    compact = "".join(text.lower().split())
    number = _number(compact)
    if isinstance(number, int | float) and math.isfinite(number):
        raise ConfigError(f"--time {text!r} has no unit; add s, m or h, such as {compact}m")
    digits = r"(\d+(?:\.\d+)?)"
    parts = re.fullmatch(f"(?:{digits}h)?(?:{digits}m)?(?:{digits}s)?", compact)
    if parts is None or not any(parts.groups()):
        raise ConfigError(f"--time {text!r} is not a time; write it as 90s, 10m or 1h30m")
    return sum(float(part) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True) if part)


def _validate(tree: Any) -> RunConfig:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise from_validation(error) from None


def config_to_json(config: RunConfig) -> str:
    """The config as indented JSON text, which `config_from_json` reads back to an equal config."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def config_from_json(text: str, path: str = "config.json") -> RunConfig:
    """The config of a config.json's text. Raises ConfigError naming `path` when it is not one."""
    try:
        return _validate(json.loads(text))
    except (json.JSONDecodeError, ConfigError) as error:
        raise ConfigError(f"{path} is not a run's config: {error}") from None


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """`["training.epochs: 5 -> 6", ...]`, one line a key whose values differ."""
    before = {setting.key: setting.value for setting in settings_of(old)}
    after = {setting.key: setting.value for setting in settings_of(new)}
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
