import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitrail.errors import DataError
from vitrail.interpretation.distances import attention_spread, patch_centres
from vitrail.interpretation.probabilities import Attended
from vitrail.interpretation.traces import Trace, trace
from vitrail.models import create_model

GRID, SIZE = (3, 5), (12, 40)  # patches of 4x8 pixels


def looked(scores: torch.Tensor, prefix: int = 0, mask: torch.Tensor | None = None) -> Trace:
    """A trace of one block whose heads have these scores (B, H, N, N): query times key, where keys are one-hot."""
    batch, heads, tokens, _ = scores.shape
    key = torch.eye(tokens).expand(batch, heads, tokens, tokens)
    every = None
    if mask is not None:
        every = torch.cat([mask.new_ones(batch, prefix), mask], dim=1)[:, None, None]
    block = Attended(scores, key, key, key, 1.0, every)
    zeros = torch.zeros(batch, tokens)
    return Trace(torch.zeros(batch, 2), (block,), zeros[..., None], zeros, GRID, prefix, mask)


def centres() -> np.ndarray:
    return np.array([(4 * row + 2, 8 * column + 4) for row in range(3) for column in range(5)], float)


def distances() -> np.ndarray:
    return np.linalg.norm(centres()[:, None] - centres(), axis=2)


def test_centres_of_patches_that_are_not_square():
    np.testing.assert_allclose(patch_centres(GRID, SIZE), centres())


def test_equal_attention_has_the_grids_mean_distance_and_most_entropy():
    found = attention_spread([looked(torch.zeros(2, 3, 15, 15))], SIZE)
    assert found.distances.shape == found.entropies.shape == (1, 3)
    np.testing.assert_allclose(found.distances, distances().mean(), rtol=1e-5)
    np.testing.assert_allclose(found.entropies, math.log(15), rtol=1e-5)
    assert found.uniform_distance == pytest.approx(distances().mean())
    assert found.largest_distance == pytest.approx(distances().max())
    assert found.largest_entropy == pytest.approx(math.log(15))
    assert found.num_images == 2


def test_attention_to_itself_has_neither():
    found = attention_spread([looked(1000 * torch.eye(15).expand(1, 2, 15, 15))], SIZE)
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)
    np.testing.assert_allclose(found.entropies, 0, atol=1e-6)


def test_attention_to_the_patch_on_the_right():
    scores = torch.zeros(1, 1, 15, 15)
    for place in range(15):
        scores[0, 0, place, place + 1 if place % 5 < 4 else place] = 1000
    found = attention_spread([looked(scores)], SIZE)
    assert found.distances.item() == pytest.approx(8 * 12 / 15)


@pytest.mark.parametrize("max_scores", [1, 40, 10**6])
def test_prefix_tokens_are_left_out_and_the_rest_sums_to_one(max_scores):
    scores = torch.zeros(2, 2, 17, 17)
    scores[:, :, :, :2] = 3.0  # class token and register get most
    scores[:, 1, :, 1] = 200.0  # and of one head everything
    found = attention_spread([looked(scores, prefix=2)], SIZE, max_scores)
    assert found.distances[0, 0] == pytest.approx(distances().mean(), rel=1e-5)
    assert found.entropies[0, 1] == pytest.approx(0, abs=1e-5)
    assert found.largest_entropy == pytest.approx(math.log(17))
    total = 2 * math.exp(3) + 15
    expected = -(2 * math.exp(3) / total * math.log(math.exp(3) / total) + 15 / total * math.log(1 / total))
    assert found.entropies[0, 0] == pytest.approx(expected, rel=1e-5)


def test_padding_neither_asks_nor_is_asked():
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    mask[0, :, 2:] = False
    found = attention_spread([looked(torch.zeros(2, 1, 15, 15), mask=mask.flatten(1))], SIZE)
    kept = mask[0].flatten().numpy()
    small = distances()[np.ix_(kept, kept)]
    expected = (small.mean(axis=1).sum() + distances().mean(axis=1).sum()) / (6 + 15)
    assert found.distances.item() == pytest.approx(expected, rel=1e-5)
    assert found.uniform_distance == pytest.approx(expected)
    entropy = (6 * math.log(6) + 15 * math.log(15)) / 21
    assert found.entropies.item() == pytest.approx(entropy, rel=1e-5)
    assert found.largest_entropy == pytest.approx(entropy)


def test_batches_are_as_one():
    scores = torch.randn(5, 2, 15, 15, generator=torch.Generator().manual_seed(0))
    whole = attention_spread([looked(scores)], SIZE)
    parts = attention_spread((looked(part) for part in scores.split(2)), SIZE)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"])
def test_a_model_against_attention_written_out(name):
    torch.manual_seed(0)
    settings = {"depth": 2, "embed_dim": 24, "num_heads": 3, "patch_size": 4} if ":" not in name else {}
    size = (12, 40) if settings else (224, 224)
    model = create_model(name, num_classes=2, image_size=size, **settings).eval()
    given = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    seen = trace(model, given)
    found = attention_spread([seen], size)
    block = seen.blocks[-1]
    probabilities = F.softmax(block.query @ block.key.transpose(2, 3) * block.scale, dim=3)
    weights = probabilities[:, :, 1:, 1:]
    weights = weights / weights.sum(dim=3, keepdim=True)
    middle = patch_centres(seen.grid, size)
    away = (middle[:, None] - middle).norm(dim=2)
    np.testing.assert_allclose(found.distances[-1], (weights * away).sum(dim=3).mean(dim=(0, 2)), rtol=1e-4)
    entropy = -(probabilities * probabilities.log()).sum(dim=3).mean(dim=(0, 2))
    np.testing.assert_allclose(found.entropies[-1], entropy, rtol=1e-4)


def test_no_images():
    with pytest.raises(DataError, match="There are no images whose attention to look at"):
        attention_spread([], SIZE)
