"""Recipes for the networks that begin with convolutions, on CIFAR-10."""

from __future__ import annotations

from vitrail.config import DataConfig, RunConfig, TrainingConfig
from vitrail.data.augment import AugmentConfig
from vitrail.models import model_config

_HALF = (0.5, 0.5, 0.5)

# SGD at a constant rate on four images at a time and nothing else, as the published CNNs train.
_PUBLISHED = TrainingConfig(
    epochs=5,
    optimizer="sgd",
    learning_rate=1e-3,
    momentum=0.9,
    batch_size=4,
    schedule="constant",
    warmup_rate=0.0,
    weight_decay=0.0,
    clip_norm=None,
)
# What has become usual for CNNs on CIFAR-10 since He et al. 2016, section 4.2: their SGD, with a cosine in place of
# steps; images mirrored, and moved by up to 4 pixels.
_USUAL = TrainingConfig(
    epochs=30,
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    batch_size=128,
    weight_decay=5e-4,
    clip_norm=None,
)
_MOVED = DataConfig(source="cifar10", augment=AugmentConfig(shift_pixels=4, flip_rate=0.5))


def s4_alexnet_cifar10() -> RunConfig:
    """AlexNet at 224x224 as published: SGD at a constant rate, four images a step.

    As published, images are enlarged to 256 and the middle 224 are used, so the middle 28x28 of CIFAR's 32x32 pixels,
    in every use of the network. The images of one run take 15 GB at that size.

    vitrail train cifar10 --recipe s4_alexnet_cifar10
    Hours on a CPU, and not measured here; 76.56 % test accuracy as published.
    """
    return RunConfig(
        recipe="s4_alexnet_cifar10",
        model_name="alexnet",
        data=DataConfig(source="cifar10", fit="crop", crop_rate=0.875),
        model=model_config("alexnet", mean=_HALF, std=_HALF),
        training=_PUBLISHED,
    )


def s4_resnet18_cifar10() -> RunConfig:
    """ResNet-18 at 224x224 as published: SGD at a constant rate, four images a step.

    Images are enlarged as in s4_alexnet_cifar10.

    vitrail train cifar10 --recipe s4_resnet18_cifar10
    Hours on a CPU, and not measured here; 80.16 % test accuracy as published.
    """
    model = model_config("resnet18", mean=_HALF, std=_HALF)
    return s4_alexnet_cifar10().model_copy(
        update={"recipe": "s4_resnet18_cifar10", "model_name": "resnet18", "model": model}
    )


def alexnet_cifar10() -> RunConfig:
    """AlexNet in its form for 32x32, with the training that has become usual for CNNs on CIFAR-10.

    vitrail train cifar10 --recipe alexnet_cifar10
    Needs a GPU or hours, and is not measured here.
    """
    return RunConfig(
        recipe="alexnet_cifar10",
        model_name="alexnet_32",
        data=_MOVED,
        model=model_config("alexnet_32"),
        # Without batch norm, the usual rate is too high.
        training=_USUAL.model_copy(update={"learning_rate": 0.02}),
    )


def resnet18_cifar10() -> RunConfig:
    """ResNet-18 in its form for 32x32, with the training that has become usual for CNNs on CIFAR-10.

    vitrail train cifar10 --recipe resnet18_cifar10
    Needs a GPU or hours, and is not measured here.
    """
    return RunConfig(
        recipe="resnet18_cifar10",
        model_name="resnet18_32",
        data=_MOVED,
        model=model_config("resnet18_32"),
        training=_USUAL,
    )


def cct_cifar10() -> RunConfig:
    """A compact convolutional transformer of 0.28 million parameters, CCT-2/3x2, for CPUs; Muon, images moved gently.

    With a GPU, --model cct_7_3x1_32 is the one of 3.76 million that its paper is known for.

    vitrail train cifar10 --recipe cct_cifar10
    With --epochs 1, 11 minutes on a CPU core that others shared: 56.0 % test accuracy (seed 0). The 20 of this recipe
    are not measured.
    """
    return RunConfig(
        recipe="cct_cifar10",
        model_name="cct_2_3x2_32",
        data=DataConfig(source="cifar10", augment=AugmentConfig(shift_pixels=3, flip_rate=0.5)),
        model=model_config("cct_2_3x2_32"),
        training=TrainingConfig(epochs=20, batch_size=64, optimizer="muon", learning_rate=3e-3, clip_norm=None),
    )
