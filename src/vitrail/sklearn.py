"""ViTClassifier: Vitrail's training as a scikit-learn estimator."""

# scikit-learn brings no type annotations.
# pyright: reportUntypedBaseClass=false

from __future__ import annotations

import json
import logging
import math
import tempfile
import time as clocks
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from vitrail.checkpoint import ModelCard, load_model, save_model, write_atomically
from vitrail.classifier import Classifier
from vitrail.config import RunConfig, config_to_json, parse_duration
from vitrail.data.dataset import Dataset, ImageSet, Shape, number_names
from vitrail.data.drawing import draw_splits
from vitrail.data.preprocess import prepare_many
from vitrail.engines.pytorch import TorchEngine, resolve_device
from vitrail.errors import CheckpointError, ConfigError, DataError, Interrupted
from vitrail.models import build_model
from vitrail.preparation import Request, TrainingData, prepare_new
from vitrail.runs import RunDirectory
from vitrail.session import say_nothing, train_model, train_prepared

logger = logging.getLogger(__name__)

LEAST_SIDE = 4  # pixels; fewer values are features rather than an image
MOST_PATCHES = 64  # of a row of features
VALIDATION_RATE = 0.1
ESTIMATOR_FILE = "estimator.json"
FORMAT_VERSION = 1

_validate: Any = validate_data  # a type checker takes its defaults for its types
_FITTED = ("classes_", "image_shape_", "data_min_", "data_max_", "n_features_in_", "result_")


class ArrayError(DataError, ValueError):
    """A DataError about X or y, as the ValueError that scikit-learn's tools expect."""


class ViTClassifier(ClassifierMixin, BaseEstimator):
    """A Vision Transformer that is trained by `fit`, as `vitrail.train` does it, but without a test split.

    X is an array of images (n, rows, columns) or (n, rows, columns, 1 or 3), or rows of numbers (n, d). Such a row is
    a square grey image if d is a square number (784: 28x28), a square RGB image if d / 3 is one (3072: 32x32x3, the
    channels last), both from 4x4 pixels on; else d features, one row of pixels without augmentation, each patch a
    feature, or equally many where that makes more than 64 patches. `image_shape_` says what it was.
    uint8 is taken as it is. Anything else becomes 0..255 by the smallest and largest value of the whole training
    data, and what lies beyond these in `predict` is clipped: put a StandardScaler in front of features whose units
    differ. Labels are of any type that scikit-learn has for classes.

    Parameters, all optional
        recipe, model: names, as `vitrail recipes` and `vitrail models` list them; None chooses by the images' size
        epochs: passes over the training images; None is the recipe's number
        time: instead of epochs, a time such as "10m", or seconds; results then depend on the machine's speed
        settings: a dict of dotted keys, such as {"training.learning_rate": 1e-3, "training.precision": "float32"};
            "data.validation_rate", 0.1 where it is not given, is the part of each class that chooses the best epoch
        out: a new folder that the run stays in; None keeps the model in memory alone
        device: auto, cpu, cuda, cuda:N or mps
        random_state: a number gives the same bits each time on one machine; None or a RandomState other ones

    Attributes after fit
        classes_, n_features_in_, feature_names_in_ (for data frames): as everywhere in scikit-learn
        image_shape_: (rows, columns, channels);  data_min_, data_max_: the values that became 0 and 255
        classifier_: the Classifier, its classes as text;  result_: images seen, seconds and best epoch of the training

    A class of one image has none to validate on; if no class has two, all images validate. `fit` raises ValueError for
    unfit data, ConfigError for unfit parameters, KeyboardInterrupt on Ctrl-C.
    """

    def __init__(
        self,
        *,
        recipe: str | None = None,
        model: str | None = None,
        epochs: int | None = None,
        time: str | float | None = None,
        settings: dict[str, Any] | None = None,
        out: str | Path | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.epochs = epochs
        self.time = time
        self.settings = settings
        self.out = out
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on images X and labels y (n,), and keep the model of the best epoch."""
        started = clocks.perf_counter()
        device = resolve_device(self.device)
        vars(self).pop("classifier_", None)  # should this fit fail, an earlier model must not answer for it
        rows, shape = _as_rows(X)
        rows, y = _validate(self, rows, y)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ArrayError(f"y has one class, {classes[0]!s}; a classifier needs two or more")
        self.classes_ = classes
        self.image_shape_ = shape or image_shape(rows.shape[1])
        is_scaled = rows.dtype != np.uint8
        self.data_min_, self.data_max_ = (float(rows.min()), float(rows.max())) if is_scaled else (0.0, 255.0)
        request = self._request()
        dataset = _dataset(self._pixels(rows), labels.astype(np.int64), tuple(map(str, classes.tolist())), request)
        config, content = prepare_new(dataset, request)
        logger.info("%s features are images of %s", f"{rows.shape[1]:,}", "x".join(map(str, self.image_shape_)))
        try:
            self.result_ = self._train(config, content, device, started)
        except Interrupted as error:  # which a search over parameters would take for one fit that failed
            raise _stop(error) from error
        return self

    def _train(self, config: RunConfig, content: TrainingData, device: torch.device, started: float) -> dict[str, Any]:
        """Train in the run's directory, or in one that is gone afterwards; take the model, give the result."""
        if self.out is None:
            with tempfile.TemporaryDirectory(prefix="vitrail-") as folder:
                directory = _create(Path(folder), config, content)
                result = train_model(directory, config, content, device, say_nothing, started)
                model, card = load_model(directory.path)
            del result["run"]
        else:
            directory = _create(Path(self.out), config, content)
            with directory.locked():
                train_prepared(directory, config, content, device, say_nothing, started)
            model, card = load_model(directory.path)
            result = directory.result() or {}
        self.classifier_ = Classifier(TorchEngine(model, device), card)
        return result

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Calibrated probabilities (n, classes), in the order of `classes_`; as exact as the model, float32."""
        check_is_fitted(self)
        rows, shape = _as_rows(X)
        if shape is not None and shape != self.image_shape_:
            raise ArrayError(f"X has images of {shape}, the model was trained on {self.image_shape_}; resize them")
        pixels = self._pixels(_validate(self, rows, reset=False))
        images = prepare_many(pixels, self.classifier_.card.preprocess)
        return self.classifier_.probabilities(images).astype(np.float32)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class (n,) of each image."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator as model.safetensors, model.json and estimator.json, which hold no code.

        Raises ConfigError for parameters or classes that JSON cannot hold, CheckpointError if the disk refuses.
        """
        check_is_fitted(self)
        fitted = {name: getattr(self, name) for name in _FITTED} | {"classes_dtype": self.classes_.dtype.str}
        if hasattr(self, "feature_names_in_"):
            fitted["feature_names_in_"] = vars(self)["feature_names_in_"]
        content = {"format_version": FORMAT_VERSION, "parameters": self.get_params(), "fitted": fitted}
        try:
            text = json.dumps(content, indent=2, default=_plain)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The estimator cannot be written as JSON ({error}); pickle it instead") from None
        path, engine = Path(folder), cast(TorchEngine, self.classifier_.engine)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{path} could not be made: {error.strerror or error}") from error
        save_model(path, engine.model.state_dict(), self.classifier_.card)
        write_atomically(path / ESTIMATOR_FILE, text + "\n")

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Self:
        """The estimator that `save` wrote, on its own or another device. Raises CheckpointError if it is damaged."""
        path = Path(folder) / ESTIMATOR_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format_version"] != FORMAT_VERSION:
                raise CheckpointError(f"{path} has another format than this Vitrail reads; fit and save it again")
            estimator, fitted = cls(**content["parameters"]), dict(content["fitted"])
            fitted["classes_"] = np.array(fitted["classes_"], np.dtype(fitted.pop("classes_dtype")))
            fitted["image_shape_"] = tuple(fitted["image_shape_"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} holds no estimator that can be read: it is missing or damaged") from error
        if "feature_names_in_" in fitted:
            fitted["feature_names_in_"] = np.array(fitted["feature_names_in_"], object)
        if device is not None:
            estimator.set_params(device=device)
        vars(estimator).update(fitted)
        model, card = load_model(Path(folder))
        estimator.classifier_ = Classifier(TorchEngine(model, resolve_device(estimator.device)), card)
        return estimator

    def _pixels(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Rows of values -> uint8 (n, rows, columns, channels)."""
        if rows.dtype != np.uint8 or (self.data_min_, self.data_max_) != (0.0, 255.0):
            low, high = self.data_min_, self.data_max_
            values = np.clip(rows.astype(np.result_type(rows, np.float32)), low, high)
            rows = np.rint((values - low) * (255 / (high - low) if high > low else 0.0)).astype(np.uint8)
        return rows.reshape(-1, *self.image_shape_)

    def _request(self) -> Request:
        """What is asked of the training. Raises ConfigError where it is not clear."""
        asked = {key: _plain(value) for key, value in (self.settings or {}).items()}
        parameters = {
            "training.epochs": ("epochs", self.epochs),
            "training.time_seconds": ("time", self.time),
            "seed": ("random_state", self.random_state),
        }
        for key, (name, value) in parameters.items():
            if key in asked and value is not None:
                raise ConfigError(f"{key} is given twice, by {name} and in settings; leave it out of settings")
        if self.epochs is not None and self.time is not None:
            raise ConfigError(f"epochs={self.epochs} and time={self.time!r} exclude each other; leave one of them out")
        seed = _plain(self.random_state)
        if not isinstance(seed, int):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        settings = {"data.validation_rate": VALIDATION_RATE, "data.split_seed": seed, "seed": seed}
        if self.image_shape_[0] == 1:
            settings |= _row_settings(self.image_shape_[1])
        seconds = parse_duration(self.time) if isinstance(self.time, str) else _plain(self.time)
        return Request(
            recipe=self.recipe,
            model=self.model,
            epochs=_plain(self.epochs),
            time_seconds=seconds,
            settings=settings | asked,
        )

    def __getstate__(self) -> dict[str, Any]:
        """The attributes, the model among them as the bytes of a safetensors file and its card as JSON."""
        state = dict(cast(dict[str, Any], super().__getstate__()))
        if "classifier_" in state:
            classifier: Classifier = state["classifier_"]
            weights = cast(TorchEngine, classifier.engine).model.state_dict()
            content = save_tensors({name: tensor.cpu().contiguous() for name, tensor in weights.items()})
            state["classifier_"] = (content, classifier.card.model_dump_json())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "classifier_" in state:
            content, text = state["classifier_"]
            card = ModelCard.model_validate_json(text)
            with torch.random.fork_rng(devices=[]):  # the caller's draws stay what they are
                model = build_model(card.model)
            model.load_state_dict(load_tensors(content))
            engine = TorchEngine(model, resolve_device(state["device"]))
            state = state | {"classifier_": Classifier(engine, card)}
        super().__setstate__(state)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classifier_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def image_shape(num_features: int) -> Shape:
    """(rows, columns, channels) of the image that so many values are, by the rule of ViTClassifier."""
    for channels in (1, 3):  # never both: three times a square number is none
        side = math.isqrt(num_features // channels)
        if side >= LEAST_SIDE and channels * side**2 == num_features:
            return side, side, channels
    return 1, num_features, 1


def _row_settings(num_features: int) -> dict[str, Any]:
    """Of a model for a row of features, in which neighbours need have nothing in common."""
    width = next(n for n in range(1, num_features + 1) if num_features % n == 0 and num_features // n <= MOST_PATCHES)
    moves = ("shift_pixels", "rotate_degrees", "scale_rate", "shear_degrees", "flip_rate", "erase_rate")
    return {
        "model.image_size": (1, num_features),
        "model.patch_size": (1, width),
        "model.stem": "linear",
        **{f"data.augment.{name}": 0 for name in moves},
    }


def _as_rows(X: Any) -> tuple[Any, Shape | None]:
    """Images as rows of values with their shape; what has one or two dimensions as it is, for others to judge."""
    if getattr(X, "ndim", 2) not in (3, 4):
        return X, None
    images = check_array(X, allow_nd=True)
    rows, columns, channels = images.shape[1:] if images.ndim == 4 else (*images.shape[1:], 1)
    if channels not in (1, 3):
        raise ArrayError(
            f"X of shape {images.shape} has {channels} channels; give (n, rows, columns), or 1 or 3 channels at the end"
        )
    return images.reshape(len(images), -1), (rows, columns, channels)


def _dataset(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...], request: Request
) -> Dataset:
    """The data set of these images, with a validation split as the request has it and no test split."""
    images = ImageSet(pixels, labels, number_names("all", len(pixels)))
    settings = request.settings or {}

    @cache
    def drawn() -> dict[str, NDArray[np.int64]]:  # not before prepare_new has checked the settings
        return _draw_validation(images, float(settings["data.validation_rate"]), int(settings["data.split_seed"]))

    def read(split: str) -> ImageSet:
        return images.take(drawn()[split])

    return Dataset("arrays", classes, ("train", "validation"), read, measure=lambda: pixels.shape[1:], draws_test=False)


def _draw_validation(images: ImageSet, rate: float, seed: int) -> dict[str, NDArray[np.int64]]:
    """As `draw_splits`, but classes with fewer than two different images stay in training altogether."""
    owner: dict[str, int] = {}  # of equal images in several classes, as draw_splits has it
    for content, label in zip(images.hashes, images.labels.tolist(), strict=True):
        owner[content] = min(label, owner.get(content, label))
    contents = np.bincount([*owner.values()], minlength=int(images.labels.max()) + 1)
    owners = np.array([owner[content] for content in images.hashes], np.int64)
    drawn_from = np.flatnonzero(contents[owners] >= 2)
    everything = np.arange(len(images))
    if not len(drawn_from):
        return {"train": everything, "validation": everything}
    hashes = [images.hashes[index] for index in drawn_from.tolist()]
    chosen = draw_splits(owners[drawn_from], hashes, {"validation": rate}, seed)["validation"]
    validation = drawn_from[chosen]
    return {"train": np.setdiff1d(everything, validation), "validation": validation}


def _create(path: Path, config: RunConfig, content: TrainingData) -> RunDirectory:
    directory = RunDirectory(path)
    directory.create(config_to_json(config), content.splits.to_json() + "\n")
    return directory


def _stop(error: Interrupted) -> BaseException:
    """What the signal would have done to a program that does not handle it."""
    return KeyboardInterrupt() if error.exit_code == 130 else SystemExit(error.exit_code)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and paths, as Python's own, which configs and JSON take."""
    if isinstance(value, np.ndarray | np.generic):
        return cast(Sequence[Any], value.tolist())
    if isinstance(value, Path):
        return str(value)
    return value
