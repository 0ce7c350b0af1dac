"""Attention in linear memory: the same numbers as torch's, which kernel runs, and how large tensors get."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from vitrail.models import long_attention
from vitrail.models.long_attention import attend, attend_in_chunks, has_fused_kernel

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"
WRITTEN_OUT = "aten::_scaled_dot_product_attention_math"


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Query, key and value, leaves that want gradients."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def outcome(function: Callable[..., Tensor], heads: list[Tensor], *arguments: Any) -> list[Tensor]:
    """What a function makes of query, key and value, and the gradients of a loss of it."""
    mixture = function(*heads, *arguments)
    weights = torch.randn(mixture.shape, generator=torch.Generator().manual_seed(1)).to(mixture.dtype)
    return [mixture, *torch.autograd.grad((mixture * weights).sum(), heads)]


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation gave."""

    num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.num_elements = max(self.num_elements, tensor.numel())
        return result


def operations(function: Callable[[], Any]) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        function()
    return {event.key for event in recorded.key_averages()}


@pytest.mark.parametrize("max_scores", [1, 50, 137, 2**20])
def test_chunks_equal_torchs_attention_and_its_gradients(max_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", max_scores)
    heads = draw(2, 3, 19, 5)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = outcome(F.scaled_dot_product_attention, heads)
    torch.testing.assert_close(outcome(attend_in_chunks, heads), fused, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(num_positions=st.integers(1, 40), num_keys=st.integers(1, 40), max_scores=st.integers(1, 2000))
def test_chunks_of_any_length_hold_every_query_once(num_positions: int, num_keys: int, max_scores: int) -> None:
    query, (key, value, _) = draw(1, 2, num_positions, 3)[0], draw(1, 2, num_keys, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_attention, "MAX_SCORES", max_scores)
        chunked = attend_in_chunks(query, key, value)
    torch.testing.assert_close(chunked, F.scaled_dot_product_attention(query, key, value), rtol=1e-4, atol=1e-5)


def test_gradients_with_dropout_are_those_of_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 40)

    def dropped(*heads: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend_in_chunks(*heads, dropout_rate=0.4)

    heads = draw(1, 2, 6, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(dropped, heads)
    assert (dropped(*heads) - attend_in_chunks(*heads)).abs().max() > 0.1


def test_dropout_keeps_the_expectation_and_draws_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 2000)
    heads = [part.detach() for part in draw(1, 1, 8, 3)]
    repeated = [part.expand(4000, -1, -1, -1) for part in heads]
    torch.manual_seed(0)
    mixtures = attend_in_chunks(*repeated, dropout_rate=0.3)
    assert mixtures.std(dim=0).min() > 0.05
    torch.testing.assert_close(mixtures.mean(dim=0), attend_in_chunks(*heads)[0], rtol=0.0, atol=0.05)
    assert not torch.equal(attend_in_chunks(*repeated, dropout_rate=0.3), mixtures)


def test_the_seed_makes_the_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 100)
    heads, drawn = draw(1, 2, 30, 4), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(attend(*heads, 0.5))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


# Which kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [1, 5, 16])
def test_the_fused_kernel_runs_forward_and_backward(
    dtype: torch.dtype, head_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 10)
    heads = draw(1, 2, 24, head_dim, dtype=dtype)
    assert has_fused_kernel(*heads)
    ran = operations(lambda: outcome(attend, heads))
    assert {FUSED, f"{FUSED}_backward"} <= ran
    assert WRITTEN_OUT not in ran
    assert "aten::bmm" not in ran


def test_channels_apart_in_memory_do_not_lose_the_fused_kernel() -> None:
    heads = [part.detach().transpose(2, 3).contiguous().transpose(2, 3) for part in draw(1, 2, 24, 16)]
    assert WRITTEN_OUT in operations(lambda: F.scaled_dot_product_attention(*heads))
    ran = operations(lambda: attend(*heads))
    assert FUSED in ran
    assert WRITTEN_OUT not in ran


@pytest.mark.parametrize("rate", [0.5, 0.0], ids=["dropout", "switched off"])
def test_without_the_fused_kernel_many_scores_come_in_chunks(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = draw(1, 2, 24, 4)
    with nullcontext() if rate else sdpa_kernel(SDPBackend.MATH):
        assert not has_fused_kernel(*heads, rate)
        few = operations(lambda: attend(*heads, rate))
        monkeypatch.setattr(long_attention, "MAX_SCORES", 100)
        many = operations(lambda: attend(*heads, rate))
    assert (WRITTEN_OUT in few, "_Chunks" in few) == (True, False)
    assert (WRITTEN_OUT in many, "_Chunks" in many) == (False, True)


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_no_tensor_grows_with_the_square_of_positions(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    max_scores, largest = 2**12, {}
    monkeypatch.setattr(long_attention, "MAX_SCORES", max_scores)
    with sdpa_kernel(SDPBackend.MATH):
        for num_positions in (128, 256, 512):
            heads = draw(1, 4, num_positions, 8)
            with Largest() as seen:
                outcome(attend, heads, rate)
            largest[num_positions] = seen.num_elements
            with Largest() as seen:
                outcome(F.scaled_dot_product_attention, heads)
            assert seen.num_elements >= 4 * num_positions**2
    for num_positions, num_elements in largest.items():
        assert num_elements <= max(max_scores, 4 * num_positions * 8)


def test_autocast_computes_in_the_type_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 100)
    heads = draw(1, 2, 24, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        chunked = outcome(attend_in_chunks, heads)
    assert {part.dtype for part in chunked} == {torch.bfloat16}
    exact = outcome(F.scaled_dot_product_attention, [part.detach().float().requires_grad_() for part in heads])
    torch.testing.assert_close([part.float() for part in chunked], exact, rtol=0.0, atol=0.1)
