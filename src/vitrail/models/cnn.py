"""The networks that Vision Transformers are compared with: torchvision's AlexNet and ResNet-18, any backbone of timm.

Both libraries' networks are wrapped as they are, under `net`, so that their published weights load into them.

Shapes: B images, C channels, D width of what the head reads
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from vitrail.errors import ConfigError, suggest
from vitrail.models.config import ImageModelConfig, Rate
from vitrail.models.features import Features
from vitrail.models.layers import Normalize

ALEXNET_SIDE = 63  # pixels that torchvision's AlexNet needs, so that its last pooling has something to pool
_LONE_IMAGE = (
    "One image whose last maps have one position leaves batch norm nothing to measure in training; "
    "use a larger batch_size, fewer micro-batches, or a larger image_size"
)
# What backbones of timm, and torch in them, say of images that they do not take.
_OF_SIZE = re.compile("(?i)kernel size|output size|must match|broadcast|input (image )?(height|width|size)")
_RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class CnnConfig(ImageModelConfig):
    """Everything that defines a Cnn. Raises ConfigError through `create_model` for impossible sizes."""

    kind: Literal["cnn"] = "cnn"
    """the family of models"""
    architecture: Literal["alexnet", "resnet18"] = "resnet18"
    """AlexNet (Krizhevsky 2014) or ResNet-18 (He et al. 2016), as torchvision has them"""
    small_images: bool = False
    """begin with smaller kernels and strides, for images of about 32x32 pixels"""
    drop_rate: Rate = 0.0
    """dropout before the head, in AlexNet before its two hidden layers; AlexNet was published with 0.5"""

    @model_validator(mode="after")
    def _check_sizes(self) -> CnnConfig:
        if self.architecture == "alexnet" and not self.small_images and min(self.image_size) < ALEXNET_SIDE:
            raise ValueError(
                f"image_size={min(self.image_size)} is too small for alexnet; "
                f"use {ALEXNET_SIDE} or more, or small_images=true"
            )
        return self


class Cnn(nn.Module):
    """AlexNet or ResNet-18 of torchvision, with a head for the config's classes.

    (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> logits (B, num_classes). Images may have any size that
    the network's pooling leaves something of.

    `small_images` changes how each begins, as at 32x32 the first layers made for 224x224 leave a single position. The
    rest stays, so that it is the same network at the same depth:

    - resnet18: a 3x3 convolution of stride 1 and no pooling in place of 7x7, stride 2 and pooling, as He et al. begin
      their networks for CIFAR-10 (section 4.2): maps of 32, 16, 8 and 4 pixels.
    - alexnet: a 5x5 convolution of stride 1 in place of 11x11 and stride 4, as Krizhevsky begins his for CIFAR-10;
      poolings are padded, so that each halves its maps: 32, 16, 8 and 4 pixels. The first hidden layer reads 4x4 maps
      in place of 6x6.
    """

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.config = config
        self.normalize = Normalize(*config.scaling())
        self.net: Any = _alexnet(config) if config.architecture == "alexnet" else _resnet18(config)
        self.head_drop = nn.Dropout(config.drop_rate if config.architecture == "resnet18" else 0.0)

    @property
    def patch_embed(self) -> nn.Module:
        """The convolution that reads the pixels."""
        return self.net.features[0] if self.config.architecture == "alexnet" else self.net.conv1

    @property
    def head(self) -> nn.Module:
        """The last linear layer."""
        return self.net.classifier[-1] if self.config.architecture == "alexnet" else self.net.fc

    def forward_features(self, images: Tensor) -> Tensor:
        """The last maps: (B, C, rows, columns) -> (B, channels, rows, columns). Raises ConfigError if none are left."""
        maps = self.normalize(images)
        if self.config.architecture == "alexnet":
            if not self.config.small_images and min(images.shape[2:]) < ALEXNET_SIDE:
                raise ConfigError(
                    f"Images of {images.shape[2]}x{images.shape[3]} pixels are too small for alexnet; "
                    f"use {ALEXNET_SIDE} or more, or small_images=true"
                )
            return self.net.features(maps)
        one_position = max(images.shape[2:]) <= (8 if self.config.small_images else 32)
        if self.training and len(images) == 1 and one_position:
            raise ConfigError(_LONE_IMAGE)
        for name in _RESNET_PARTS:
            maps = getattr(self.net, name)(maps)
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        """What the head reads, of the last maps: their mean (B, 512), or AlexNet's last hidden layer (B, 4096)."""
        pooled = self.net.avgpool(maps).flatten(1)
        return self.net.classifier[:-1](pooled) if self.config.architecture == "alexnet" else pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, num_classes) of what `pool` gives."""
        return self.head(self.head_drop(pooled))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.pool(self.forward_features(images)))

    def features(self, images: Tensor) -> Features:
        """The last maps, what is pooled of them, and the logits of `forward`; there is no attention to look at."""
        maps = self.forward_features(images)
        pooled = self.pool(maps)
        return Features((), maps, pooled, self.classify(pooled), (maps.shape[2], maps.shape[3]))


def _alexnet(config: CnnConfig) -> nn.Module:
    from torchvision.models import alexnet

    net: Any = alexnet(weights=None, num_classes=config.num_classes, dropout=config.drop_rate)
    if config.small_images:
        net.features[0] = nn.Conv2d(config.in_chans, 64, kernel_size=5, padding=2)
        for place in (2, 5, 12):
            net.features[place] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        net.avgpool = nn.AdaptiveAvgPool2d((4, 4))
        net.classifier[1] = nn.Linear(256 * 4 * 4, 4096)
    elif config.in_chans != 3:
        net.features[0] = nn.Conv2d(config.in_chans, 64, kernel_size=11, stride=4, padding=2)
    return net


def _resnet18(config: CnnConfig) -> nn.Module:
    from torchvision.models import resnet18

    net: Any = resnet18(weights=None, num_classes=config.num_classes)
    if config.small_images:
        net.conv1 = nn.Conv2d(config.in_chans, 64, kernel_size=3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    elif config.in_chans != 3:
        net.conv1 = nn.Conv2d(config.in_chans, 64, kernel_size=7, stride=2, padding=3, bias=False)
    else:
        return net
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's others
    return net


class TimmConfig(ImageModelConfig):
    """Everything that defines a TimmModel. Raises ConfigError through `create_model` for names that timm has not."""

    kind: Literal["timm"] = "timm"
    """the family of models"""
    name: str
    """the backbone's name, as timm.list_models() has it"""
    drop_rate: Rate = 0.0
    """dropout before the head"""
    drop_path_rate: Rate = 0.0
    """stochastic depth, for backbones that have it"""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        problem = _problem_of_name(name)
        if problem is not None:
            raise ValueError(problem)
        return name


def _problem_of_name(name: str) -> str | None:
    import timm

    backbone, _, tag = name.partition(".")
    names = timm.list_models()
    if not timm.is_model(backbone):
        return f"No timm model named {backbone!r}.{suggest(backbone, names)} `timm.list_models()` lists them"
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{backbone}.*")]
    if tag and tag not in tags:
        return f"timm's {backbone} has no weights named {tag!r}.{suggest(tag, tags)} Leave the name after the dot out"
    return None


def timm_settings(name: str) -> dict[str, Any]:
    """The settings of a TimmConfig for timm's backbone `name`: its own image size and number of classes.

    Raises ConfigError for an unknown name, with the nearest valid one.
    """
    import timm

    problem = _problem_of_name(name)
    if problem is not None:
        raise ConfigError(problem)
    own = timm.get_pretrained_cfg(name)
    settings: dict[str, Any] = {"kind": "timm", "name": name}
    if own is not None:
        settings["image_size"] = tuple(own.input_size[1:])
        settings |= {"num_classes": own.num_classes} if own.num_classes else {}
    return settings


class TimmModel(nn.Module):
    """Any backbone of timm, untrained, with a head for the config's classes.

    (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> logits (B, num_classes). Raises ConfigError for settings
    and images that the backbone refuses.
    """

    def __init__(self, config: TimmConfig) -> None:
        import timm

        super().__init__()
        self.config = config
        self.normalize = Normalize(*config.scaling())
        rates = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
        settings: dict[str, Any] = {key: rate for key, rate in rates.items() if rate}  # not every backbone has both
        own = timm.get_pretrained_cfg(config.name)
        if own is not None and own.fixed_input_size:
            settings["img_size"] = config.image_size
        settings |= {"num_classes": config.num_classes, "in_chans": config.in_chans}
        try:
            self.net: Any = timm.create_model(config.name, pretrained=False, **settings)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            asked = ", ".join(f"{key}={value}" for key, value in settings.items())
            raise ConfigError(f"timm cannot make {config.name} with {asked}: {_sentence(error)}") from None

    @property
    def patch_embed(self) -> nn.Module:
        """The layers that read the pixels."""
        named: str | tuple[str, ...] = self.net.pretrained_cfg.get("first_conv") or ()
        names = (named,) if isinstance(named, str) else named
        return nn.ModuleList(self.net.get_submodule(name) for name in names)

    @property
    def head(self) -> nn.Module:
        """The last linear layer; a few backbones have several, whose answers they join."""
        head = self.net.get_classifier()
        if hasattr(head, "global_pool"):  # sequencer's is pooling and layer in one
            head = head.fc
        heads: list[nn.Module] = [head] if isinstance(head, nn.Module) else [*head]
        heads += filter(None, [getattr(self.net, "aux_head", None)])  # volo's, which reads every patch
        return heads[0] if len(heads) == 1 else nn.ModuleList(heads)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last maps or tokens, before pooling, laid out as the backbone has them."""
        images = self.normalize(images)
        try:
            return self.net.forward_features(images)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            if "more than 1 value per channel" in str(error):
                raise ConfigError(_LONE_IMAGE) from None
            size = (images.shape[2], images.shape[3])
            unusual = size != tuple(self.net.pretrained_cfg.get("input_size", ())[1:])
            if _OF_SIZE.search(str(error)) or (unusual and not isinstance(error, RuntimeError)):
                raise ConfigError(
                    f"timm's {self.config.name} does not take images of {size[0]}x{size[1]} pixels: {_sentence(error)}"
                ) from None
            raise

    def pool(self, maps: Tensor) -> Tensor:
        """What the head reads (B, D); the logits of backbones with several heads, which read a vector each."""
        return self.net.forward_head(maps, pre_logits=not isinstance(self.head, nn.ModuleList))

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, num_classes) of what `pool` gives."""
        head = self.head
        if isinstance(head, nn.ModuleList):
            return pooled
        return head(pooled[:, :, None, None]).flatten(1) if isinstance(head, nn.Conv2d) else head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.net.forward_head(self.forward_features(images))

    def features(self, images: Tensor) -> Features:
        """The last maps or tokens, what is pooled of them, and the logits of `forward`, but for the blocks' inside.

        Maps are (B, D, rows, columns). Raises ConfigError for backbones that have several streams of tokens.
        """
        maps = self.forward_features(images)
        if not isinstance(maps, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  # timm is not typed
            raise ConfigError(f"timm's {self.config.name} has several streams of tokens, and so no one set of features")
        pooled = self.pool(maps)
        logits = self.classify(pooled)
        if maps.ndim == 3:
            num_prefix = int(getattr(self.net, "num_prefix_tokens", hasattr(self.net, "cls_token")))
            return Features((), maps, pooled, logits, _grid(maps.shape[1] - num_prefix, images), num_prefix)
        if maps.shape[1] != self.net.num_features == maps.shape[3]:
            maps = maps.permute(0, 3, 1, 2)
        return Features((), maps, pooled, logits, (maps.shape[2], maps.shape[3]))


def _grid(num_patches: int, images: Tensor) -> tuple[int, int]:
    """Rows and columns of so many patches of images; one row where they are no grid of the images' shape."""
    rows = max(1, round((num_patches * images.shape[2] / images.shape[3]) ** 0.5))
    return (rows, num_patches // rows) if num_patches % rows == 0 else (1, num_patches)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
