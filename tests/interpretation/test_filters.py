import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from vitrail.errors import ConfigError
from vitrail.interpretation.filters import first_filters, random_share
from vitrail.models import create_model

TINY = {"image_size": 16, "patch_size": 4, "embed_dim": 64, "depth": 1, "num_heads": 2, "num_classes": 3}


@pytest.mark.parametrize("in_chans", [1, 3])
def test_components_of_a_patch_projection_are_scikit_learns(in_chans):
    torch.manual_seed(0)
    model = create_model("vit_tiny_patch16_224", **TINY, in_chans=in_chans)
    found = first_filters(model)
    filters = model.patch_embed.proj.weight.detach().double().permute(0, 2, 3, 1).flatten(1).numpy()
    expected = PCA(min(28, 16 * in_chans)).fit(filters)
    assert found.pictures.shape == (len(expected.components_), 4, 4, in_chans)
    np.testing.assert_allclose(found.explained, expected.explained_variance_ratio_, rtol=1e-6)
    for picture, component in zip(found.pictures, expected.components_, strict=True):
        weights = (picture - 0.5).ravel()  # zero is the middle of grey
        assert np.abs(weights).max() == pytest.approx(0.5)
        cosine = weights @ component / np.linalg.norm(weights)
        assert abs(cosine) == pytest.approx(1, abs=1e-6)
    assert (found.num_filters, found.num_weak) == (64, 0)


def test_a_patchs_own_norm_is_part_of_its_filters():
    torch.manual_seed(0)
    model = create_model("vit_tiny_patch16_224", **TINY, patch_norm=True)
    with torch.no_grad():
        model.patch_embed.pre_norm.weight.zero_()[5] = 1.0  # channel 0, row 1, column 1
    pictures = first_filters(model).pictures
    assert np.argwhere(np.abs(pictures[0] - 0.5) > 1e-6).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [
        ("vit_tiny_patch16_224", {**TINY, "stem": "conv"}, (32, 3, 3, 3)),
        ("cct_2_3x2_32", {}, (64, 3, 3, 3)),
        ("resnet18", {"small_images": True, "image_size": 32, "in_chans": 1}, (64, 3, 3, 1)),
        ("timm:resnet18", {"num_classes": 2}, (64, 7, 7, 3)),
    ],
)
def test_small_kernels_are_shown_as_they_are(name, settings, shape):
    torch.manual_seed(0)
    model = create_model(name, **settings)
    found = first_filters(model)
    assert found.pictures.shape == shape
    assert found.explained is found.random_share is None
    first = next(layer for layer in model.patch_embed.modules() if isinstance(layer, nn.Conv2d))
    kernels = first.weight.detach().permute(0, 2, 3, 1).numpy()
    strongest = kernels[np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1).argmax()]
    scale = np.abs(strongest).max() / np.abs(found.pictures[0] - 0.5).max()
    np.testing.assert_allclose((found.pictures[0] - 0.5) * scale, strongest, atol=1e-6)


def test_a_backbone_of_timm_that_projects_patches_has_components():
    found = first_filters(create_model("timm:vit_tiny_patch16_224", num_classes=2))
    assert (found.pictures.shape, found.num_filters) == ((28, 16, 16, 3), 192)
    ours = create_model("vit_tiny_patch16_224", num_classes=2)
    assert first_filters(ours).pictures.shape == found.pictures.shape


def test_filters_that_do_nothing_are_counted():
    model = create_model("resnet18", small_images=True, image_size=32)
    with torch.no_grad():
        model.net.conv1.weight[3:10].mul_(1e-4)
    assert first_filters(model).num_weak == 7


@pytest.mark.parametrize("shape", [(400, 64), (64, 192)])
def test_the_share_of_random_filters(shape):
    filters = np.random.default_rng(0).normal(size=shape)
    assert PCA(1).fit(filters).explained_variance_ratio_[0] == pytest.approx(random_share(*shape), rel=0.1)


def test_other_first_layers_are_said():
    with pytest.raises(ConfigError, match=r"so it has no filters to show$"):
        first_filters(nn.Linear(3, 3))
    with pytest.raises(ConfigError, match="Filters of 2 channels cannot be shown as pictures"):
        first_filters(create_model("vit_tiny_patch16_224", **TINY, in_chans=2))
