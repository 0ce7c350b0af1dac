"""Weights that exist already, with all that is known of them: published, in a file or folder, or another run's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vitrail.checkpoint import ModelCard, read_card, read_tensors, weights_digest
from vitrail.data.preprocess import Preprocess
from vitrail.descriptions import (
    Fitting,
    crop_rate_of,
    differing,
    distinct,
    numbered,
    stated_license,
    timm_classes,
    timm_preprocessing,
    transformers_classes,
    transformers_preprocessing,
)
from vitrail.errors import CheckpointError, ConfigError, from_validation, suggest
from vitrail.hub import fetch_file, fetch_url, find_file
from vitrail.models import MODELS, build_model
from vitrail.models.adaptation import head_names
from vitrail.models.cnn import CnnConfig, TimmConfig, timm_settings
from vitrail.models.families import AnyModelConfig
from vitrail.models.layouts import timm as timm_layout
from vitrail.models.vit_config import ViTConfig
from vitrail.models.weights import Imported, import_network, import_weights, load_weights
from vitrail.runs import find_run
from vitrail.weight_files import SUFFIXES, read_weights

PREFIXES = ("timm:", "hf:", "torchvision:")
_FILES = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # in repositories that timm only points to


@dataclass(frozen=True)
class Pretrained:
    """Weights under our names, and the card of their model; `notes` are sentences on what is not as it was published.

    Without a head, as of a feature extractor, `card.classes` is empty and the card's model has one class.
    """

    name: str
    card: ModelCard
    weights: dict[str, Tensor]
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> AnyModelConfig:
        """The model that the weights are of."""
        return self.card.model

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, none of a feature extractor."""
        return self.card.classes

    @property
    def preprocess(self) -> Preprocess:
        """How its images are prepared."""
        return self.card.preprocess

    @cached_property
    def digest(self) -> str:
        """The hash of the weights, which is that of the model.safetensors that holds them."""
        return weights_digest(self.weights)

    def module(self) -> nn.Module:
        """The model with its weights, in evaluation mode; a head that they lack gives zeros."""
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away; the caller's draws stay
            model = build_model(self.config)
        load_weights(model, self.weights, () if self.classes else head_names(self.config))
        if not self.classes:
            head: Any = model.head
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        return model.eval()


class _Place(Protocol):
    """Where a model's files lie."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def find(self, file: str) -> Path | None:
        """The file's path, None if there is no such file."""
        ...

    def fetch(self, file: str) -> Path:
        """The file's path. Raises CheckpointError saying how to get it."""
        ...


@dataclass(frozen=True)
class _Repository:
    name: str
    repository: str
    offline: bool

    def find(self, file: str) -> Path | None:
        return find_file(self.repository, file, offline=self.offline)

    def fetch(self, file: str) -> Path:
        return fetch_file(self.repository, file, offline=self.offline)


@dataclass(frozen=True)
class _Folder:
    name: str
    path: Path

    def find(self, file: str) -> Path | None:
        return self.path / file if (self.path / file).is_file() else None

    def fetch(self, file: str) -> Path:
        found = self.find(file)
        if found is None:
            raise CheckpointError(f"{self.path} holds no {file}; give a folder with a model's config and weights")
        return found


def is_published(text: str | Path) -> bool:
    """Whether `text` stands for weights of others, or a pushed model, rather than for a run."""
    path = Path(text)
    if str(text).startswith(PREFIXES):
        return True
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    has_weights = any((path / file).is_file() for file in _FILES)
    return has_weights and not (path / "journal.jsonl").is_file()


def settled(text: str) -> str:
    """`text` as it may be looked up again: a run by its path, also where it is called `last` or by its bare name."""
    if is_published(text) or Path(text).is_file():
        return text
    try:
        return str(find_run(text).path)
    except ConfigError as error:
        if ":" in text and not Path(text).exists():
            scheme = text.partition(":")[0] + ":"
            raise ConfigError(
                f"{text!r} names no weights.{suggest(scheme, PREFIXES)} Write timm:<name>, hf:<owner>/<model>, "
                "torchvision:<name>, or give a file, a folder or a run"
            ) from None
        raise ConfigError(
            f"There are no weights at {text} ({error}); give a weights file, a folder, a run, timm:<name>, "
            "hf:<owner>/<model> or torchvision:<name>"
        ) from None


def open_pretrained(text: str, *, offline: bool = False, named: AnyModelConfig | None = None) -> Pretrained:
    """The weights that `text` names: timm:<name>, hf:<owner>/<model>, torchvision:<name>, a file, a folder or a run.

    With `offline` nothing is downloaded. `named` is a model that the user says they are of, for files that tell less.
    Raises ConfigError for a name that is wrong, CheckpointError for what cannot be had or read, each with what to do.
    """
    text = settled(text)
    scheme, colon, rest = text.partition(":")
    if scheme + colon == "timm:":
        return _open_timm(rest, offline)
    if scheme + colon == "hf:":
        return _open_place(_Repository(text, rest, offline))
    if scheme + colon == "torchvision:":
        return _open_torchvision(rest, offline)
    path = Path(text)
    return _open_file(path, named) if path.is_file() else _open_place(_Folder(path.name, path), named)


def _open_place(place: _Place, named: AnyModelConfig | None = None) -> Pretrained:
    """A model of a repository or a folder, in the layout of Hugging Face, of timm, or of Vitrail."""
    # A run's config.json is not what is looked for; elsewhere it is what most have.
    path = place.find("config.json") if isinstance(place, _Repository) else None
    card_path = place.find("model.json") if path is None else None
    if card_path is not None:
        weights = read_tensors(place.fetch("model.safetensors"))
        card = read_card(card_path.parent)
        origin = {"weights": place.name} | {
            key: card.provenance[key] for key in ("license", "init") if key in card.provenance
        }
        return Pretrained(place.name, card.model_copy(update={"provenance": origin}), weights)
    path = path or place.find("config.json")
    if path is None and isinstance(place, _Folder):
        return _open_file(_fetch_weights(place), named)
    described = _read_json(path or place.fetch("config.json"))
    weights = read_weights(_fetch_weights(place))
    readme = place.find("README.md")
    text = "" if readme is None else readme.read_text(encoding="utf-8", errors="replace")
    processor_path = None if "architecture" in described else place.find("preprocessor_config.json")
    processor = {} if processor_path is None else _read_json(processor_path)
    with _describing(place.name):
        provenance = {"weights": place.name, "license": stated_license(described, text)}
        if "architecture" in described:
            return _from_timm(place.name, described, weights, provenance)
        return _from_transformers(place.name, described, processor, weights, provenance)


@contextlib.contextmanager
def _describing(name: str) -> Generator[None]:
    """One sentence for what a description of a model may have wrong."""
    try:
        yield
    except ValidationError as error:
        raise CheckpointError(f"{name} describes no model that can be built: {from_validation(error)}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The description of {name} is damaged: {' '.join(str(error).split())}") from error


def _fetch_weights(place: _Place, files: tuple[str, ...] = _FILES) -> Path:
    for file in files:
        path = place.find(file)
        if path is not None:
            return path
    return place.fetch(files[0])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} could not be read: {str(error).rstrip('.')}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object")
    return content  # pyright: ignore[reportUnknownVariableType]  # whatever JSON holds


def _card(
    name: str, config: AnyModelConfig, classes: tuple[str, ...], fitting: Fitting, provenance: Mapping[str, Any]
) -> ModelCard:
    preprocess = Preprocess(image_size=config.image_size, channels=config.in_chans, **fitting._asdict())
    known = {key: value for key, value in provenance.items() if value is not None}
    if not classes:
        config = config.model_copy(update={"num_classes": 1})
    return ModelCard(model_name=name, model=config, classes=classes, preprocess=preprocess, provenance=known)


def _open_timm(name: str, offline: bool) -> Pretrained:
    """A model of timm's, by timm's name."""
    import timm

    timm_settings(name)  # raises for a name that timm does not have
    known = timm.get_pretrained_cfg(name)
    if known is None or not (known.hf_hub_id or known.url):
        raise ConfigError(f"timm has no weights for {name}; `timm.list_pretrained()` lists the models that have some")
    tagged = name.partition(".")[0] + (f".{known.tag}" if known.tag else "")
    full, described = f"timm:{tagged}", dict[str, Any]()
    if known.hf_hub_id:
        place = _Repository(full, known.hf_hub_id, offline)
        path = place.find("config.json")
        described = {} if path is None else _read_json(path)
        files = (known.hf_hub_filename,) if known.hf_hub_filename else (*_FILES, *_OPEN_CLIP)
        weights = read_weights(_fetch_weights(place, files))
    else:
        weights = read_weights(fetch_url(str(known.url), offline=offline))
    if "architecture" not in described:  # a file of others, which timm reads by what it knows of it
        weights = timm_layout.as_timm_has_it(tagged, weights)
        published: dict[str, Any] = known.to_dict()
        described = {
            "architecture": known.architecture,
            "num_classes": known.num_classes,
            "pretrained_cfg": published,
        }
    with _describing(full):
        license_ = stated_license(described, "") or known.license
        return _from_timm(full, described, weights, {"weights": full, "license": license_})


def _from_timm(
    name: str, described: dict[str, Any], weights: dict[str, Tensor], provenance: dict[str, Any]
) -> Pretrained:
    """A model that a config.json of timm describes: our own Vision Transformer where it is one, else timm's module."""
    published: dict[str, Any] = described.get("pretrained_cfg") or {}
    architecture = str(described["architecture"])
    num_classes = int(described.get("num_classes", published.get("num_classes", 0)))
    if timm_layout.is_ours(weights, described):
        config, ours = import_weights(weights, described)
        has_head = "head.weight" in ours
    else:
        timm_layout.check_as_named(described)
        settings = timm_settings(architecture) | {"num_classes": num_classes or 1}
        if "input_size" in published:
            settings |= {"in_chans": published["input_size"][0], "image_size": tuple(published["input_size"][1:])}
        asked: dict[str, Any] = described.get("model_args") or {}
        settings |= {"in_chans": asked["in_chans"]} if "in_chans" in asked else {}
        settings |= {"image_size": asked["img_size"]} if "img_size" in asked else {}
        settings |= {key: tuple(published[key]) for key in ("mean", "std") if key in published}
        config = TimmConfig.model_validate(settings)
        ours, has_head = {f"net.{key}": value for key, value in weights.items()}, num_classes > 0
    classes = timm_classes(described, num_classes) if has_head else ()
    fitting, notes = timm_preprocessing(name, described)
    own_name = architecture if isinstance(config, ViTConfig) and architecture in MODELS else f"timm:{architecture}"
    return Pretrained(name, _card(own_name, config, classes, fitting, provenance), ours, notes)


def _from_transformers(
    name: str,
    described: dict[str, Any],
    processor: dict[str, Any],
    weights: dict[str, Tensor],
    provenance: dict[str, Any],
) -> Pretrained:
    """A model that a config.json of transformers describes, and a preprocessor_config.json if there is one."""
    config, ours = import_weights(weights, {**processor, **described})
    classes = transformers_classes(described, config.num_classes) if "head.weight" in ours else ()
    fitting, size, notes = transformers_preprocessing(name, processor)
    if size is None or any(side % patch for side, patch in zip(size, config.patch_size, strict=True)):
        size = config.image_size
    card = _card(name, config, classes, fitting, provenance)
    return Pretrained(name, _at_size(card, size), ours, notes)


def _at_size(card: ModelCard, size: tuple[int, int]) -> ModelCard:
    return card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"image_size": size})})


def _open_torchvision(name: str, offline: bool) -> Pretrained:
    """A model of torchvision's with the weights that torchvision thinks best, or torchvision:<name>.<weights>."""
    from torchvision.models import get_model_weights, list_models

    name, _, chosen = name.partition(".")
    usable = [known for known in list_models() if known in ("alexnet", "resnet18") or known.startswith("vit_")]
    if name not in usable:
        raise ConfigError(
            f"No torchvision model named {name!r} can be used.{suggest(name, usable)} Use one of {', '.join(usable)}"
        )
    every: Any = get_model_weights(name)
    if chosen and chosen not in every.__members__:
        raise ConfigError(
            f"torchvision's {name} has no weights named {chosen!r}.{suggest(chosen, every.__members__)} "
            f"Use one of {', '.join(every.__members__)}"
        )
    best: Any = every[chosen] if chosen else every.DEFAULT
    preset: Any = best.transforms()
    weights = read_weights(fetch_url(best.url, offline=offline))
    if name.startswith("vit_"):
        config, ours = import_weights(weights)
    else:
        config = CnnConfig.model_validate({"architecture": name, "mean": preset.mean, "std": preset.std})
        ours = {f"net.{key}": value for key, value in weights.items()}
    full = f"torchvision:{name}.{best.name}"
    fitting = Fitting("crop", crop_rate_of(preset.crop_size[0], preset.resize_size[0]))
    card = _card(full, config, distinct(best.meta["categories"]), fitting, {"weights": full})
    return Pretrained(full, card, ours, differing(full, "crop", preset.interpolation.value))


def _open_file(path: Path, named: AnyModelConfig | None) -> Pretrained:
    """A weights file, with the config.json beside it if it is one that a library saved with its weights."""
    beside = path.with_name("config.json")
    if path.name in _FILES and (beside.is_file() or path.with_name("model.json").is_file()):
        return _open_place(_Folder(path.parent.resolve().name, path.parent))
    weights = read_weights(path)
    notes: tuple[str, ...] = ()
    if isinstance(named, CnnConfig | TimmConfig):
        config, ours, has_head = import_network(weights, named)
    else:
        config, ours = _of_vit(weights, named if isinstance(named, ViTConfig) else None)
        has_head = "head.weight" in ours
        if named is None and path.suffix != ".npz":  # Google's layout tells
            notes = (
                f"{path.name} does not say how many attention heads its model has: {config.num_heads} are taken, of "
                "64 channels each; if it has others, name the model",
            )
    classes = numbered(config.num_classes) if has_head else ()
    if classes:
        notes = (*notes, f"{path.name} does not say what its {len(classes):,} classes are called")
    return Pretrained(
        path.name, _card(path.stem, config, classes, Fitting("crop"), {"weights": path.name}), ours, notes
    )


def _of_vit(weights: dict[str, Tensor], named: ViTConfig | None) -> Imported:
    """Weights of a Vision Transformer, of the model that the user says they are of, if it fits."""
    try:
        return import_weights(weights, config=named)
    except CheckpointError:
        if named is None:
            raise
        return import_weights(weights)  # of another model than the user says, which fitting them will tell
