import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.errors import ConfigError
from vitrail.models.merging import encode_merging, merge_tokens
from vitrail.models.vit import VisionTransformer

Draw = Callable[..., VisionTransformer]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def match_one_image(
    tokens: Tensor, weights: Tensor, keys: Tensor, num_merged: int, num_prefix: int
) -> tuple[list[Tensor], list[float]]:
    """One step of bipartite soft matching on one image, written with loops. Bolya et al. 2023, section 3."""
    patches = list(range(num_prefix, len(tokens)))
    movers, others = patches[::2], patches[1::2]
    edges: list[tuple[float, int, int]] = []
    for mover in movers:
        likeness = [torch.cosine_similarity(keys[mover], keys[other], dim=0).item() for other in others]
        best = max(range(len(others)), key=lambda place: likeness[place])
        edges.append((likeness[best], mover, others[best]))
    edges.sort(key=lambda edge: -edge[0])
    groups: dict[int, list[int]] = {other: [other] for other in others}
    for _, mover, other in edges[:num_merged]:
        groups[other].append(mover)
    staying = [[mover] for _, mover, _ in edges[num_merged:]]
    merged, sums = list(tokens[:num_prefix]), [1.0] * num_prefix
    for group in [*staying, *groups.values()]:
        total = sum(weights[index].item() for index in group)
        merged.append(sum(tokens[index] * weights[index] for index in group) / total)
        sums.append(total)
    return merged, sums


@settings(max_examples=25)
@given(
    num_patches=st.integers(2, 9),
    num_prefix=st.integers(0, 2),
    num_merged=st.integers(1, 5),
    seed=st.integers(0, 2**20),
)
def test_one_step_equals_the_papers_written_with_loops(
    num_patches: int, num_prefix: int, num_merged: int, seed: int
) -> None:
    num_tokens = num_prefix + num_patches
    tokens, keys = noise(2, num_tokens, 5, seed=seed), noise(2, num_tokens, 4, seed=seed + 1)
    weights = torch.randint(1, 4, (2, num_tokens, 1), generator=torch.Generator().manual_seed(seed)).float()
    weights[:, :num_prefix] = 1
    merged, sums = merge_tokens(tokens, weights, keys, num_merged, num_prefix)
    for image in range(2):
        number = min(num_merged, num_patches // 2)
        expected, totals = match_one_image(tokens[image], weights[image], keys[image], number, num_prefix)
        torch.testing.assert_close(merged[image], torch.stack(expected), rtol=1e-4, atol=1e-5)
        assert sums[image, :, 0].tolist() == totals


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(0, 2), st.integers(0, 8), st.integers(0, 2**20))
def test_weights_add_up_to_the_patches_and_the_mean_stays(
    num_patches: int, num_prefix: int, num_merged: int, seed: int
) -> None:
    tokens = noise(2, num_prefix + num_patches, 6, seed=seed)
    weights = torch.ones(2, num_prefix + num_patches, 1)
    mean = tokens[:, num_prefix:].mean(dim=1)
    for step in range(3):
        keys = noise(2, tokens.shape[1], 4, seed=seed + step)
        before = tokens.shape[1]
        tokens, weights = merge_tokens(tokens, weights, keys, num_merged, num_prefix)
        assert before - tokens.shape[1] == min(num_merged, (before - num_prefix) // 2)
        assert weights[:, num_prefix:].sum(dim=1).flatten().tolist() == [num_patches] * 2
        assert (weights[:, :num_prefix] == 1).all()
    patches = tokens[:, num_prefix:]
    torch.testing.assert_close((patches * weights[:, num_prefix:]).sum(dim=1) / num_patches, mean, rtol=1e-4, atol=1e-5)


def test_prefix_tokens_are_never_merged() -> None:
    tokens, keys = noise(1, 6, 3), torch.ones(1, 6, 2)  # all are alike
    merged, _ = merge_tokens(tokens, torch.ones(1, 6, 1), keys, 4, num_prefix=2)
    assert torch.equal(merged[:, :2], tokens[:, :2])
    assert merged.shape == (1, 4, 3)


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_lone_patch_has_none_to_join(tokens: int) -> None:
    values, weights = noise(2, tokens, 3), torch.ones(2, tokens, 1)
    merged, same = merge_tokens(values, weights, values, 3, num_prefix=tokens - 1)
    assert merged is values
    assert same is weights


@pytest.mark.parametrize("settings", [{}, {"global_pool": "avg", "class_token": False}, {"distilled": True}])
def test_no_merges_change_nothing(images, tiny_vit: Draw, settings: dict[str, object]) -> None:
    model, batch = tiny_vit(**settings), images(2, 3, 12, 12)
    tokens, weights = encode_merging(model.blocks, model.embed(batch).tokens, 0, model.num_prefix_tokens)
    torch.testing.assert_close(model.norm(tokens), model.forward_features(batch), rtol=1e-4, atol=1e-5)
    assert (weights == 1).all()
    expected = model(batch)
    model.merge_tokens(2)
    assert (model(batch) - expected).abs().max() > 1e-3
    model.merge_tokens(0)
    assert torch.equal(model(batch), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": False, "fc_norm": False},
        {"global_pool": "token_avg", "reg_tokens": 2, "init_values": 0.5, "mlp_layer": "swiglu", "qk_norm": True},
        {"distilled": True},
    ],
)
@pytest.mark.parametrize("number", [1, 3, 100])
def test_merging_patches_that_are_the_same_is_exact(
    images, tiny_vit: Draw, settings: dict[str, object], number: int
) -> None:
    model = tiny_vit(pos_embed="none", **settings)
    patch = images(2, 3, 4, 4)
    batch = patch.repeat(1, 1, 4, 3)
    expected = model(batch)
    model.merge_tokens(number)
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_the_mean_counts_a_merged_token_as_often_as_the_patches_it_stands_for(images, tiny_vit: Draw) -> None:
    model, batch = tiny_vit(global_pool="avg"), images(2, 3, 12, 12)
    tokens, weights = encode_merging(model.blocks, model.embed(batch).tokens, 2, model.num_prefix_tokens)
    patches, shares = tokens[:, 1:], weights[:, 1:] / 9
    model.merge_tokens(2)
    expected = model.classify(model.fc_norm((patches * shares).sum(dim=1)))
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-4)
    assert (model.classify(model.fc_norm(patches.mean(dim=1))) - expected).abs().max() > 1e-3


def test_each_block_leaves_fewer_tokens(images, tiny_vit: Draw) -> None:
    model = tiny_vit(depth=3, image_size=16)
    tokens = model.embed(images(2, 3, 16, 16)).tokens
    for number, left in ((1, 13), (3, 7), (8, 2), (100, 2)):
        merged, weights = encode_merging(model.blocks, tokens, number, 1)
        assert merged.shape == (2, 1 + left, 24)
        assert weights[:, 1:].sum(dim=1).flatten().tolist() == [16, 16]


def test_merging_is_for_inference_alone(images, tiny_vit: Draw) -> None:
    model, batch = tiny_vit(), images(2, 3, 12, 12)
    expected = model(batch)
    model.merge_tokens(2)
    torch.testing.assert_close(model.train()(batch), expected)
    assert (model.eval()(batch) - expected).abs().max() > 1e-3


def test_a_merged_prediction_does_not_depend_on_the_rest_of_its_batch(images, tiny_vit: Draw) -> None:
    model, batch = tiny_vit(global_pool="avg"), images(4, 3, 12, 12)
    model.merge_tokens(2)
    alone = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(model(batch), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "number", "message"),
    [
        ({}, -1, "merge_tokens=-1 is not possible; use 0 or more"),
        (
            {"pos_embed": "rope", "head_dim": 8},
            2,
            "Tokens of a model with pos_embed='rope' cannot be merged: a merged one has no one place",
        ),
        (
            {"global_pool": "map"},
            2,
            "Tokens of a model with global_pool='map' cannot be merged: its pooling counts each token once",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused(
    tiny_vit: Draw, settings: dict[str, object], number: int, message: str
) -> None:
    model = tiny_vit(**settings)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        model.merge_tokens(number)
    model.merge_tokens(0)
    assert model.merged_tokens == 0


@pytest.mark.parametrize("number", [-1, 2.5, True, "2", None])
def test_what_is_no_number_of_tokens_is_refused(tiny_vit: Draw, number: Any) -> None:
    message = f"merge_tokens={number} is not possible; use 0 or more"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        tiny_vit().merge_tokens(number)


@pytest.mark.parametrize("given", ["mask", "sizes"])
def test_merging_and_masks_do_not_go_together(images, tiny_vit: Draw, given: str) -> None:
    model, batch = tiny_vit(), images(2, 3, 12, 12)
    model.merge_tokens(1)
    masks = {"mask": torch.ones(2, 3, 3, dtype=torch.bool), "sizes": torch.tensor([[12, 12], [8, 4]])}
    message = "Merged tokens and masked or padded images do not go together; leave one of them out"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        model(batch, **{given: masks[given]})
