"""Where weights of the models are published, and under which licence; nothing is fetched.

timm and torchvision list theirs themselves. Hugging Face's are the authors' own repositories.
"""

from __future__ import annotations

from typing import NamedTuple

from vitrail.models.config import ImageModelConfig


class Weights(NamedTuple):
    """Published weights of a model."""

    source: str
    """where they are: timm:NAME.TAG, hf:OWNER/NAME or torchvision:NAME.WEIGHTS"""
    licence: str
    """the licence they come with; "unknown" where their publisher names none"""


# A model -> torchvision's name of it.
_TORCHVISION = {
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch16_384": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "vit_large_patch32_224": "vit_l_32",
    "vit_huge_patch14_224": "vit_h_14",
    "alexnet": "alexnet",
    "resnet18": "resnet18",
}
_SWAG_LICENCE = "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"  # torchvision gives the address alone

# A model -> repositories. DINOv3's have a licence of their own; all others are under Apache-2.0, by their model cards.
_HUGGING_FACE: dict[str, tuple[str, ...]] = {
    "vit_small_patch8_224": ("facebook/dino-vits8",),
    "vit_small_patch16_224": ("facebook/dino-vits16",),
    "vit_base_patch8_224": ("facebook/dino-vitb8",),
    "vit_base_patch16_224": (
        "google/vit-base-patch16-224",
        "google/vit-base-patch16-224-in21k",
        "facebook/dino-vitb16",
    ),
    "vit_base_patch16_384": ("google/vit-base-patch16-384",),
    "vit_base_patch32_224": ("google/vit-base-patch32-224-in21k",),
    "vit_base_patch32_384": ("google/vit-base-patch32-384",),
    "vit_large_patch16_224": ("google/vit-large-patch16-224", "google/vit-large-patch16-224-in21k"),
    "vit_large_patch16_384": ("google/vit-large-patch16-384",),
    "vit_large_patch32_224": ("google/vit-large-patch32-224-in21k",),
    "vit_large_patch32_384": ("google/vit-large-patch32-384",),
    "vit_huge_patch14_224": ("google/vit-huge-patch14-224-in21k",),
    "deit_tiny_patch16_224": ("facebook/deit-tiny-patch16-224",),
    "deit_small_patch16_224": ("facebook/deit-small-patch16-224",),
    "deit_base_patch16_224": ("facebook/deit-base-patch16-224",),
    "deit_base_patch16_384": ("facebook/deit-base-patch16-384",),
    "deit_tiny_distilled_patch16_224": ("facebook/deit-tiny-distilled-patch16-224",),
    "deit_small_distilled_patch16_224": ("facebook/deit-small-distilled-patch16-224",),
    "deit_base_distilled_patch16_224": ("facebook/deit-base-distilled-patch16-224",),
    "deit_base_distilled_patch16_384": ("facebook/deit-base-distilled-patch16-384",),
    "vit_small_patch14_dinov2": ("facebook/dinov2-small",),
    "vit_base_patch14_dinov2": ("facebook/dinov2-base",),
    "vit_large_patch14_dinov2": ("facebook/dinov2-large",),
    "vit_giant_patch14_dinov2": ("facebook/dinov2-giant",),
    "vit_small_patch14_reg4_dinov2": ("facebook/dinov2-with-registers-small",),
    "vit_base_patch14_reg4_dinov2": ("facebook/dinov2-with-registers-base",),
    "vit_large_patch14_reg4_dinov2": ("facebook/dinov2-with-registers-large",),
    "vit_giant_patch14_reg4_dinov2": ("facebook/dinov2-with-registers-giant",),
    "vit_small_patch16_dinov3_qkvb": ("facebook/dinov3-vits16-pretrain-lvd1689m",),
    "vit_small_plus_patch16_dinov3_qkvb": ("facebook/dinov3-vits16plus-pretrain-lvd1689m",),
    "vit_base_patch16_dinov3_qkvb": ("facebook/dinov3-vitb16-pretrain-lvd1689m",),
    "vit_large_patch16_dinov3_qkvb": (
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
        "facebook/dinov3-vitl16-pretrain-sat493m",
    ),
    "vit_huge_plus_patch16_dinov3_qkvb": ("facebook/dinov3-vith16plus-pretrain-lvd1689m",),
}


def published_weights(name: str, config: ImageModelConfig) -> tuple[Weights, ...]:
    """What is published for the model called `name`: timm's, then Hugging Face's, then torchvision's."""
    of_timm = timm_weights(name) if config.kind == "vit" else ()  # timm's CNNs bear other names inside
    return (*of_timm, *_hugging_face_weights(name), *_torchvision_weights(name, config))


def timm_weights(name: str) -> tuple[Weights, ...]:
    """The pretrained tags of a model of timm; none where it has no model of that name."""
    from timm.models import get_pretrained_cfg, is_model, list_pretrained

    if not is_model(name):
        return ()
    tagged = list_pretrained(f"{name}.*")
    licences = ((tag, getattr(get_pretrained_cfg(tag), "license", None)) for tag in tagged)
    return tuple(Weights(f"timm:{tag}", licence or "unknown") for tag, licence in licences)


def _hugging_face_weights(name: str) -> tuple[Weights, ...]:
    return tuple(
        Weights(f"hf:{repository}", "dinov3-license" if "/dinov3" in repository else "apache-2.0")
        for repository in _HUGGING_FACE.get(name, ())
    )


def _torchvision_weights(name: str, config: ImageModelConfig) -> tuple[Weights, ...]:
    """Those of its weights that are for images of the model's size."""
    if name not in _TORCHVISION:
        return ()
    from torchvision.models import get_model_weights

    found: list[Weights] = []
    for weights in get_model_weights(_TORCHVISION[name]):
        side = weights.transforms().crop_size[0]
        if config.image_size == (side, side):
            licence = weights.meta.get("license", "unknown")
            licence = "cc-by-nc-4.0" if licence == _SWAG_LICENCE else licence
            found.append(Weights(f"torchvision:{_TORCHVISION[name]}.{weights.name}", licence))
    return tuple(found)
