import math

import numpy as np
import pytest
import torch

from vitrail.errors import ConfigError
from vitrail.interpretation import positions
from vitrail.interpretation.positions import position_similarity, position_structure, similarity
from vitrail.models import create_model
from vitrail.models.positions import rotary_positions, rotate

TINY = {"image_size": (12, 20), "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
VIT = "vit_tiny_patch16_224"


def cosine(a, b) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("settings", [{}, {"no_embed_class": True}, {"class_token": False, "global_pool": "avg"}])
def test_learned_embeddings_are_compared_without_those_of_prefix_tokens(settings):
    torch.manual_seed(0)
    model = create_model(VIT, **TINY, **settings)
    found = position_similarity(model)
    assert (found.kind, found.width, found.step, found.similarity.shape) == ("learned", 16, 1, (3, 5, 3, 5))
    own = model.pos_embed[0, -15:].detach().view(3, 5, 16)
    assert found.similarity[1, 2, 0, 4] == pytest.approx(cosine(own[1, 2], own[0, 4]), abs=1e-6)
    np.testing.assert_allclose(found.similarity.reshape(15, 15).diagonal(), 1, atol=1e-6)


def test_sine_cosine_embeddings_by_formula():
    found = position_similarity(create_model(VIT, **TINY, pos_embed="sincos2d", global_pool="avg"))
    frequencies = [10_000 ** -(k / 3) for k in range(4)]  # embed_dim / 4 of them

    def mean(offset: int) -> float:
        return sum(math.cos(offset * frequency) for frequency in frequencies) / 4

    for row, column, other_row, other_column in np.ndindex(3, 5, 3, 5):
        expected = (mean(row - other_row) + mean(column - other_column)) / 2
        assert found.similarity[row, column, other_row, other_column] == pytest.approx(expected, abs=1e-6)
    assert found.kind == "fixed"


def test_rotary_positions_by_turning_equal_vectors():
    model = create_model(VIT, **TINY, pos_embed="rope", class_token=False, global_pool="avg")
    found = position_similarity(model)
    assert (found.kind, found.width) == ("rotary", 8)
    rotation = rotary_positions((3, 5), 8)
    turned = rotate(torch.ones(1, 1, 15, 8), rotation)[0, 0]
    expected = (turned @ turned.T / 8).view(3, 5, 3, 5)
    np.testing.assert_allclose(found.similarity, expected, atol=1e-6)
    angles = torch.atan2(*rotation)
    mean = (angles[0] - angles[7]).cos().mean()  # of the differences of angles
    assert found.similarity[0, 0, 1, 2] == pytest.approx(float(mean), abs=1e-6)
    assert position_similarity(model, (2, 2)).similarity.shape == (2, 2, 2, 2)


@pytest.mark.parametrize("kind", ["learn", "sine"])
def test_compact_transformers(kind):
    torch.manual_seed(0)
    model = create_model("cct_2_3x2_32", pos_embed=kind)
    found = position_similarity(model)
    assert found.similarity.shape == (8, 8, 8, 8)
    assert found.kind == {"learn": "learned", "sine": "fixed"}[kind]
    own = model.pos_embed[0].detach()
    assert found.similarity[0, 3, 2, 1] == pytest.approx(cosine(own[3], own[17]), abs=1e-6)


@pytest.mark.parametrize("kind", ["learn", "sincos2d"])
def test_attention_on_maps(kind):
    settings = {"image_size": (12, 20), "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = create_model("s1_attention2d", **settings, pos_embed=kind)
    found = position_similarity(model)
    own = model.pos_embed[0].detach()
    assert found.similarity[2, 1, 0, 4] == pytest.approx(cosine(own[:, 2, 1], own[:, 0, 4]), abs=1e-6)


def test_backbones_of_timm():
    model = create_model("timm:vit_tiny_patch16_224", num_classes=2)
    torch.nn.init.normal_(model.net.pos_embed)
    found = position_similarity(model)
    own = model.net.pos_embed[0, 1:].detach()
    assert (found.similarity.shape, found.kind) == ((14, 14, 14, 14), "learned")
    assert found.similarity[0, 5, 2, 3] == pytest.approx(cosine(own[5], own[31]), abs=1e-6)


def test_rotary_backbones_of_timm_are_as_ours():
    found = position_similarity(create_model("timm:vit_small_patch16_dinov3", num_classes=2))
    assert found.kind == "rotary"
    rows, columns = found.similarity.shape[:2]
    ours = similarity(torch.cat([*rotary_positions((rows, columns), 64)], dim=1), (rows, columns))
    np.testing.assert_allclose(found.similarity, ours, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        (VIT, {**TINY, "pos_embed": "none"}, "The model has no position information"),
        ("resnet18", {}, "A CNN has no position embeddings"),
        ("timm:resnet18", {}, "timm's resnet18 has no position embedding of each patch"),
        ("timm:swin_tiny_patch4_window7_224", {}, "timm's swin_tiny_patch4_window7_224 has no position embedding"),
    ],
)
def test_models_without_positions_say_so(name, settings, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        position_similarity(create_model(name, **settings))


def test_of_large_grids_every_so_many_places_are_there(monkeypatch):
    vectors = torch.randn(6 * 7, 4, generator=torch.Generator().manual_seed(0))
    whole = similarity(vectors, (6, 7))
    monkeypatch.setattr(positions, "MOST_SIDE", 3)
    np.testing.assert_allclose(similarity(vectors, (6, 7)), whole[::3, ::3, ::3, ::3], atol=1e-6)


def test_structure_says_who_is_alike():
    rows = np.arange(4)[:, None].repeat(3, axis=1)
    same_row = (rows[:, :, None, None] == rows).astype(np.float32)
    found = position_structure(same_row)
    assert (found.row, found.column) == (1, 0)
    pairs_along, pairs_down = 4 * 2 * 2, 3 * 3 * 2  # neighbours in a row, and in a column
    assert found.neighbours == pytest.approx(pairs_along / (pairs_along + pairs_down))
    assert found.others == pytest.approx(4 * 2 / (12 * 11 - pairs_along - pairs_down))
