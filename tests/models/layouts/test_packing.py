import torch
from torch import Tensor

from vitrail.models.layouts.packing import (
    fill_biases,
    fold_class_position,
    fold_prefix_positions,
    pack,
    split_qkv,
    unfold_positions,
)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_query_key_and_value_are_packed_in_this_order_and_split_again() -> None:
    apart = {f"blocks.0.attn.{part}_proj.weight": drawn(2, 3) + index for index, part in enumerate("vkq")}
    packed = pack({**apart, "norm.weight": drawn(3)})
    assert packed.keys() == {"blocks.0.attn.qkv.weight", "norm.weight"}
    whole = packed["blocks.0.attn.qkv.weight"]
    assert torch.equal(whole, torch.cat([apart[f"blocks.0.attn.{part}_proj.weight"] for part in "qkv"]))
    again = split_qkv(packed)
    assert again.keys() == {*apart, "norm.weight"}
    assert all(torch.equal(again[name], tensor) for name, tensor in apart.items())


def test_a_key_without_bias_has_zeros() -> None:
    apart = {"attn.q_proj.bias": drawn(2), "attn.v_proj.bias": drawn(2) + 1}
    expected = torch.cat([apart["attn.q_proj.bias"], torch.zeros(2), apart["attn.v_proj.bias"]])
    assert torch.equal(pack(apart)["attn.qkv.bias"], expected)


def test_gate_comes_before_value() -> None:
    packed = pack({"mlp.fc1_x.weight": drawn(2, 3), "mlp.fc1_g.weight": drawn(2, 3) + 1})
    assert torch.equal(packed["mlp.fc1.weight"], torch.cat([drawn(2, 3) + 1, drawn(2, 3)]))


def test_half_of_what_belongs_together_keeps_its_name() -> None:
    half = {"attn.q_proj.weight": drawn(2, 3), "attn.k_proj.weight": drawn(2, 3)}
    assert pack(half).keys() == half.keys()


def test_the_class_position_becomes_part_of_the_class_token() -> None:
    weights = {"cls_token": drawn(1, 1, 4), "pos_embed": drawn(1, 5, 4)}
    folded = fold_class_position(weights)
    torch.testing.assert_close(folded["cls_token"], weights["cls_token"] + weights["pos_embed"][:, :1])
    assert torch.equal(folded["pos_embed"], weights["pos_embed"][:, 1:])
    unfolded = unfold_positions(folded, 2)
    assert not unfolded["pos_embed"][:, :2].any()
    assert torch.equal(unfolded["pos_embed"][:, 2:], folded["pos_embed"])


def test_positions_of_all_prefix_tokens_become_part_of_them() -> None:
    weights = {"cls_token": drawn(1, 1, 4), "reg_token": drawn(1, 2, 4), "pos_embed": drawn(1, 8, 4)}
    folded = fold_prefix_positions(weights, 5)
    torch.testing.assert_close(folded["cls_token"], weights["cls_token"] + weights["pos_embed"][:, :1])
    torch.testing.assert_close(folded["reg_token"], weights["reg_token"] + weights["pos_embed"][:, 1:3])
    assert torch.equal(folded["pos_embed"], weights["pos_embed"][:, 3:])
    again = fold_prefix_positions(folded, 5)
    assert all(torch.equal(again[name], tensor) for name, tensor in folded.items())


def test_biases_that_lack_are_zeros_and_others_stay() -> None:
    weights = {"blocks.0.mlp.fc1.weight": drawn(4, 3), "blocks.1.mlp.fc1.weight": drawn(4, 3)}
    weights |= {"blocks.1.mlp.fc1.bias": drawn(4), "blocks.0.mlp.fc2.weight": drawn(3, 4)}
    filled = fill_biases(weights, "mlp.fc1")
    assert filled.keys() - weights.keys() == {"blocks.0.mlp.fc1.bias"}
    assert torch.equal(filled["blocks.0.mlp.fc1.bias"], torch.zeros(4))
    assert torch.equal(filled["blocks.1.mlp.fc1.bias"], drawn(4))
