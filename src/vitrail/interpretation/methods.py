"""The methods of explanation by their names: which there are, which of them a model allows, and their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitrail.errors import ConfigError, suggest
from vitrail.interpretation.attention import attention_map, relevance, rollout
from vitrail.interpretation.gradients import batches, check_grad_cam, grad_cam, integrated_gradients
from vitrail.interpretation.occlusion import occlusion
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target
from vitrail.interpretation.traces import Trace, check_attention, trace
from vitrail.models.cnn import TimmModel

SMALL_PIXELS = 112  # of the longer side of images: below, tokens and last maps are few, and 226 passes are soon done


@dataclass(frozen=True)
class Method:
    """One way to explain an answer.

    `maps` gives (N, rows, columns) of a subject, images and targets; `lacks` says in half a sentence what a subject has
    not that it needs, None where nothing. `reading` is a sentence on how to read its maps.
    """

    maps: Callable[..., np.ndarray]
    lacks: Callable[[Subject], str | None]
    reading: str
    signed: bool = False
    """maps are below 0 where something speaks against the target"""
    specific: bool = True
    """maps are of the class asked for; others show what is looked at, whatever for"""
    layered: bool = False
    """`maps` takes `layer` and `head` too"""
    cells: str = "patches"
    """what a map has a value of"""

    def reading_of(self, against: str | None) -> str:
        """`reading` of maps of a class rather than another, if there is one."""
        if against is None:
            return self.reading
        return self.reading.replace("the class's score", f"the score of the class rather than {against}")


def check_method(method: str) -> None:
    """Raise ConfigError for an unknown method, with the nearest valid name."""
    if method not in METHODS:
        raise ConfigError(f"No method named {method!r}.{suggest(str(method), METHODS)} Use one of {', '.join(METHODS)}")


def check_place(subject: Subject, method: str, layer: int | None, head: int | None) -> None:
    """Raise ConfigError for a layer or a head that a possible method does not take, or that is not there.

    It is tried on a blank image: only then a backbone's layers are known.
    """
    _check_layered(method, layer, head)
    if METHODS[method].layered:
        with subject.evaluated():
            METHODS[method].maps(subject, subject.blank(), [Target(0)], layer=layer, head=head)


def _check_layered(method: str, layer: int | None, head: int | None) -> None:
    if not METHODS[method].layered and (layer is not None or head is not None):
        layered = _either([name for name, entry in METHODS.items() if entry.layered])
        raise ConfigError(f"{method} is of all layers and heads together; leave layer and head out, or use {layered}")


def impossible(subject: Subject, method: str) -> str | None:
    """Why a method cannot explain this model, and which can, in one sentence; None where it can.

    Raises ConfigError for an unknown method, with the nearest valid name.
    """
    check_method(method)
    reason = METHODS[method].lacks(subject)
    if reason is None:
        return None
    others = ["merge_tokens=0"] if reason == _merged(subject) else []
    return f"{reason}; use {_either([*others, *possible_methods(subject)])}"


def possible_methods(subject: Subject) -> list[str]:
    """The names of the methods that can explain this model."""
    return [name for name, method in METHODS.items() if method.lacks(subject) is None]


def default_method(subject: Subject) -> str:
    """The method where none is asked for: occlusion for small images, else relevance with attention, else grad_cam.

    Tokens and last maps of small images are as coarse as 4x4; measured there, occlusion is the most faithful of the
    methods whose maps can be looked at, and it is cheap. docs/guides/faithfulness.md has the figures.
    """
    if subject.model is None or max(subject.blank().shape[1:3]) < SMALL_PIXELS:
        return "occlusion"
    return next(name for name in ("relevance", "grad_cam", "occlusion") if METHODS[name].lacks(subject) is None)


def evidence_maps(
    subject: Subject,
    images: np.ndarray,
    targets: Sequence[Target],
    method: str,
    layer: int | None = None,
    head: int | None = None,
) -> np.ndarray:
    """Where each image's evidence for its target lies: maps (N, rows, columns) float32, larger where there is more.

    `images` are uint8 (N, H, W, channels) as the model takes them, one or more, each with its target. Maps lie on the
    grid of patches or of the last maps, or have the image's own pixels; each is what it would be alone. Layers and
    heads count from 0, or with negative numbers from the end; without them it is the last layer, the mean of its heads.

    Raises ConfigError for methods, layers and heads that are not there, and with the sentence of `impossible`.
    """
    assert len(images) == len(targets) > 0
    sentence = impossible(subject, method)
    if sentence is not None:
        raise ConfigError(sentence)
    _check_layered(method, layer, head)
    found = METHODS[method]
    with subject.evaluated():
        if found.layered:
            return found.maps(subject, images, targets, layer=layer, head=head)
        return found.maps(subject, images, targets)


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _watched(
    subject: Subject,
    images: np.ndarray,
    targets: Sequence[Target],
    of: Callable[[Trace, Sequence[Target]], Tensor],
    *,
    gradients: bool = False,
) -> np.ndarray:
    """What `of` makes of the model's traces, a batch at a time."""
    assert subject.model is not None
    maps = [
        of(trace(subject.model, batch, gradients=gradients), wanted).detach().float().cpu()
        for batch, wanted in batches(subject, images, targets)
    ]
    return torch.cat(maps).numpy()


def _attention(
    subject: Subject,
    images: np.ndarray,
    targets: Sequence[Target],
    layer: int | None = None,
    head: int | None = None,
) -> np.ndarray:
    place = -1 if layer is None else layer
    return _watched(subject, images, targets, lambda found, _: attention_map(found, place, head))


def _rollout(subject: Subject, images: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    return _watched(subject, images, targets, lambda found, _: rollout(found))


def _nothing(_subject: Subject) -> None:
    return None


def _gradients(subject: Subject) -> str | None:
    """What a subject lacks for gradients."""
    return "A model that runs without PyTorch gives answers alone, no gradients" if subject.model is None else None


def _maps_or_tokens(subject: Subject) -> str | None:
    """What a subject lacks for Grad-CAM."""
    return _gradients(subject) or _merged(subject) or _found_out(subject, "grad_cam", _try_grad_cam)


def _attended(subject: Subject) -> str | None:
    """What a subject lacks for the maps of its attention."""
    if subject.model is None:
        return "A model that runs without PyTorch gives answers alone, not its attention"
    return _merged(subject) or _found_out(subject, "attention", _try_attention)


def _merged(subject: Subject) -> str | None:
    if getattr(subject.model, "merged_tokens", 0):
        return "Merged tokens have no place in the image"
    return None


def _found_out(subject: Subject, what: str, check: Callable[[Subject], None]) -> str | None:
    """What a check of the subject says, which is made once: a backbone of timm is tried on a blank image."""
    if what not in subject.found_out:
        try:
            with subject.evaluated():
                check(subject)
            subject.found_out[what] = None
        except ConfigError as error:
            subject.found_out[what] = str(error).partition(";")[0]
    return subject.found_out[what]


def _try_grad_cam(subject: Subject) -> None:
    assert subject.model is not None
    check_grad_cam(subject.model)
    if isinstance(subject.model, TimmModel):
        grad_cam(subject, subject.blank(), [Target(0)])


def _try_attention(subject: Subject) -> None:
    assert subject.model is not None
    check_attention(subject.model)
    if isinstance(subject.model, TimmModel):
        _rollout(subject, subject.blank(), [Target(0)])


# In the order in which they are shown.
METHODS: dict[str, Method] = {
    "relevance": Method(
        partial(_watched, of=relevance, gradients=True),
        _attended,
        "Bright patches are those whose attention, through all layers, raises the class's score",
    ),
    "rollout": Method(
        _rollout,
        _attended,
        "Bright patches are those that attention, rolled out over all layers, leads to, whatever the class",
        specific=False,
    ),
    "attention": Method(
        _attention,
        _attended,
        "Bright patches are those that one layer attends to, whatever the class and whatever is done with them",
        specific=False,
        layered=True,
    ),
    "grad_cam": Method(
        grad_cam,
        _maps_or_tokens,
        "Bright places have features, in the last layer that has places, that raise the class's score",
        cells="places",
    ),
    "integrated_gradients": Method(
        integrated_gradients,
        _gradients,
        "Orange pixels (above 0) raise the class's score on the way from a plain colour to the image, blue ones "
        "(below 0) lower it",
        signed=True,
        cells="pixels",
    ),
    "occlusion": Method(
        occlusion,
        _nothing,
        "Orange places (above 0) are those without which the class's score falls, blue ones (below 0) those without "
        "which it rises",
        signed=True,
        cells="windows",
    ),
}
