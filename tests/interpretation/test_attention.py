"""Attention maps, rollout and relevance against matrices that are written out in full, and by hand."""

from __future__ import annotations

import pytest
import torch
from attending_models import ATTENDING, WrittenOut, small_model, some_images
from torch import Tensor

from vitrail.errors import ConfigError
from vitrail.interpretation.attention import attention_map, relevance, rollout
from vitrail.interpretation.probabilities import Attended
from vitrail.interpretation.targets import Target
from vitrail.interpretation.traces import Trace, trace

TARGETS = (Target(3), Target(1, against=4))


def written_out(family: str, images: Tensor) -> tuple[Trace, list[Tensor], Tensor | None, list[Tensor]]:
    """A trace for its tokens, each block's probabilities (B, H, N, N), pooling's, and the gradients of all of them.

    The model runs with attention written out, and gradients are torch's own of the probabilities themselves.
    """
    model = small_model(family)
    with WrittenOut() as attention:
        found = trace(model, images, gradients=True)
    probabilities = attention.probabilities
    value = found.logits[0, 3] + found.logits[1, 1] - found.logits[1, 4]
    gradients = list(torch.autograd.grad(value, [*probabilities, found.tokens]))
    pool = probabilities.pop() if found.pool is not None else None
    return found, probabilities, pool, gradients


@pytest.mark.parametrize("family", ATTENDING)
def test_rollout_is_the_product_of_all_layers(family):
    model = small_model(family)
    images = some_images(model)
    found, probabilities, pool, _ = written_out(family, images)
    expected = torch.zeros_like(found.readout)
    for index in range(len(images)):
        product = torch.eye(expected.shape[1])
        for layer in probabilities:
            mean = torch.zeros_like(product)
            for head in layer[index].detach():
                mean += head / len(layer[index])
            product = (mean / 2 + torch.eye(len(mean)) / 2) @ product
        read = found.readout[index]
        if pool is not None:
            read = torch.zeros_like(read)
            read[-pool.shape[-1] :] = pool[index].detach().mean(dim=0)[0]
        for token in range(len(read)):
            expected[index] += read[token] * product[token]
    maps = rollout(trace(model, images))
    assert maps.shape == (2, *found.grid)
    torch.testing.assert_close(maps, found.of_patches(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ATTENDING)
def test_relevance_is_that_of_attention_written_out(family):
    model = small_model(family)
    images = some_images(model)
    found, probabilities, pool, gradients = written_out(family, images)
    expected = torch.zeros_like(found.readout)
    for index in range(len(images)):
        product = torch.eye(expected.shape[1])
        for layer, gradient in zip(probabilities, gradients, strict=False):
            weighted = torch.zeros_like(product)
            for head, of_head in zip(layer[index].detach(), gradient[index], strict=True):
                weighted += (head * of_head).clamp(min=0) / len(layer[index])
            product = product + weighted @ product
        if pool is not None:
            read = torch.zeros(len(product))
            read[-pool.shape[-1] :] = (pool * gradients[-2])[index].detach().clamp(min=0).mean(dim=0)[0]
        elif found.readout[index].max() == 1:
            read = found.readout[index]
        else:  # a mean's probability is its weight, and that weight's gradient is the pooled vector's times the token
            counted = found.readout[index] > 0
            parts = (gradients[-1][index] * found.tokens[index].detach()).sum(dim=1)
            read = torch.where(torch.arange(len(parts)) < found.num_prefix_tokens, parts.abs(), parts.clamp(min=0))
            read = read * counted
        for token in range(len(read)):
            expected[index] += read[token] * product[token]
    maps = relevance(trace(model, images, gradients=True), TARGETS)
    assert float(maps.abs().max()) > 1e-4
    torch.testing.assert_close(maps, found.of_patches(expected), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ATTENDING)
def test_a_map_of_one_layer_and_head(family):
    model = small_model(family)
    images = some_images(model)
    found, probabilities, _, _ = written_out(family, images)
    num_prefix = found.num_prefix_tokens
    reads_prefix = bool((found.readout[:, :num_prefix] > 0).any())
    shares = found.readout.detach().clone()
    if reads_prefix:
        shares[:, num_prefix:] = 0
        shares /= shares.sum(dim=1, keepdim=True)
    for layer, head in ((0, 1), (-1, None)):
        rows = probabilities[layer].mean(dim=1) if head is None else probabilities[layer][:, head]
        expected = torch.stack([shares[index] @ rows[index] for index in range(len(images))])
        maps = attention_map(trace(model, images), layer, head)
        torch.testing.assert_close(maps, found.of_patches(expected.detach()), rtol=1e-4, atol=1e-6)


def two_layers() -> Trace:
    """A class token and two patches in a row; the first layer's attention and the second's are chosen by their keys."""

    def attended(*rows: tuple[float, float, float]) -> Attended:
        probabilities = torch.tensor(rows)[None, None]
        # A query of the unit vector i meets keys whose entry i is the logarithm of what is wanted.
        return Attended(torch.eye(3)[None, None], probabilities.log().mT, probabilities, probabilities, scale=1.0)

    first = attended((0.2, 0.4, 0.4), (0.1, 0.8, 0.1), (0.5, 0.25, 0.25))
    second = attended((0.5, 0.1, 0.4), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8))
    readout = torch.tensor([[1.0, 0.0, 0.0]])
    return Trace(torch.zeros(1, 2), (first, second), torch.zeros(1, 3, 4), readout, (1, 2), num_prefix_tokens=1)


def test_two_layers_by_hand():
    """Half identity: the second layer's row is (0.75, 0.05, 0.2); times the first layer's halves."""
    first, second = (0.75 * 0.2 + 0.05 * 0.9 + 0.2 * 0.125, 0.75 * 0.2 + 0.05 * 0.05 + 0.2 * 0.625)
    torch.testing.assert_close(rollout(two_layers()), torch.tensor([[[first, second]]]))
    torch.testing.assert_close(attention_map(two_layers(), 0), torch.tensor([[[0.4, 0.4]]]))
    torch.testing.assert_close(attention_map(two_layers()), torch.tensor([[[0.1, 0.4]]]))


def test_uniform_attention_rolls_out_uniformly():
    model = small_model("mean")
    for block in model.blocks:
        block.attn.qkv.weight.data.zero_()
        block.attn.qkv.bias.data.zero_()
    maps = rollout(trace(model, some_images(model)))
    torch.testing.assert_close(maps, torch.full_like(maps, 1 / maps[0].numel()))


@pytest.mark.parametrize("family", ATTENDING)
def test_a_map_does_not_depend_on_the_rest_of_the_batch(family):
    model = small_model(family)
    images = some_images(model)
    together = relevance(trace(model, images, gradients=True), TARGETS)
    alone = relevance(trace(model, images[1:], gradients=True), TARGETS[1:])
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", ATTENDING)
def test_every_class_has_evidence_whatever_its_logit(family):
    model = small_model(family)
    images = some_images(model)
    for index in range(5):
        maps = relevance(trace(model, images, gradients=True), [Target(index)] * 2)
        assert (maps.flatten(1).amax(dim=1) > 0).all(), index


def test_padding_is_no_evidence():
    for family in ("masked mean", "masked class token"):
        model = small_model(family)
        found = trace(model, some_images(model), gradients=True)
        assert found.grid == (2, 3)
        for maps in (rollout(found), attention_map(found), relevance(found, TARGETS)):
            assert torch.equal(maps[1, :, 2], torch.zeros(2))
            assert float(maps[0, :, 2].sum()) > 0


@pytest.mark.parametrize(
    ("layer", "head", "pattern"),
    [
        (3, None, "^layer=3 is not there: the model has 3 layers, 0 to 2$"),
        (-4, None, "^layer=-4 is not there"),
        (0, 2, "^head=2 is not there: the model has 2 heads, 0 to 1$"),
    ],
)
def test_a_layer_or_head_that_is_not_there(layer, head, pattern):
    model = small_model("class token")
    with pytest.raises(ConfigError, match=pattern):
        attention_map(trace(model, some_images(model)), layer, head)
