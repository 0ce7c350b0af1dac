import re

import pytest
import timm
from torchvision.models import list_models as list_torchvision_models

from vitrail.models import MODELS, model_config
from vitrail.models.published import (
    _HUGGING_FACE,  # pyright: ignore[reportPrivateUsage]
    _TORCHVISION,  # pyright: ignore[reportPrivateUsage]
    published_weights,
    timm_weights,
)


def sources(name: str) -> dict[str, str]:
    return dict(published_weights(name, model_config(name)))


def test_weights_of_every_publisher_are_found() -> None:
    found = sources("vit_base_patch16_224")
    assert found["timm:vit_base_patch16_224.augreg2_in21k_ft_in1k"] == "apache-2.0"
    assert found["timm:vit_base_patch16_224.mae"] == "cc-by-nc-4.0"
    assert found["timm:vit_base_patch16_224.bamboo"] == "unknown"
    assert found["hf:google/vit-base-patch16-224"] == "apache-2.0"
    assert found["torchvision:vit_b_16.IMAGENET1K_V1"] == "unknown"
    assert found["torchvision:vit_b_16.IMAGENET1K_SWAG_LINEAR_V1"] == "cc-by-nc-4.0"


def test_timms_tags_are_all_of_a_models_own() -> None:
    assert [weights.source for weights in timm_weights("vit_base_patch16_224")] == [
        f"timm:{tag}" for tag in timm.list_pretrained("vit_base_patch16_224.*")
    ]
    assert timm_weights("s5_vit") == ()


def test_torchvisions_weights_are_for_images_of_the_models_size() -> None:
    assert "torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1" not in sources("vit_base_patch16_224")
    found = [source for source in sources("vit_base_patch16_384") if source.startswith("torchvision:")]
    assert found == ["torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1"]


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"])
def test_weights_under_a_licence_of_their_own_say_so(name: str) -> None:
    assert "dinov3-license" in sources(name).values()
    assert "apache-2.0" not in sources(name).values()


@pytest.mark.parametrize("name", ["s5_vit", "cifar_vit", "vit_micro_conv8_28", "s3_vit_256"])
def test_nothing_is_published_for_models_of_ours(name: str) -> None:
    assert sources(name) == {}


def test_names_in_the_tables_are_models() -> None:
    assert {*_TORCHVISION, *_HUGGING_FACE} <= {*MODELS}
    assert {*_TORCHVISION.values()} <= {*list_torchvision_models()}
    repositories = [repository for listed in _HUGGING_FACE.values() for repository in listed]
    assert len({*repositories}) == len(repositories)
    assert all(re.fullmatch(r"(google|facebook)/[a-z0-9-]+", repository) for repository in repositories)
