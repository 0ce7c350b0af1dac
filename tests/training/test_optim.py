import re

import pytest
import torch
from torch import Tensor, nn

from vitrail.config import TrainingConfig
from vitrail.models import create_model
from vitrail.training.optim import Muon, create_optimizers, orthogonalize

SHAPES = [(16, 16), (24, 8), (8, 40)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def torch_newton_schulz(matrix: Tensor) -> Tensor:
    """The update that torch.optim.Muon takes for a gradient, without momentum, rate or decay."""
    parameter = nn.Parameter(torch.zeros_like(matrix))
    parameter.grad = matrix.clone()
    torch.optim.Muon([parameter], lr=1.0, momentum=0.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
    return parameter.detach() / (-0.2 * max(matrix.shape) ** 0.5)


def descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], num_steps: int = 4) -> None:
    """Steps on gradients that are drawn anew for each, the same in every call."""
    for step in range(num_steps):
        for index, parameter in enumerate(parameters):
            parameter.grad = drawn(*parameter.shape, seed=100 * step + index)
        optimizer.step()


def twins(shapes: list[tuple[int, ...]] = SHAPES) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    values = [drawn(*shape, seed=index) for index, shape in enumerate(shapes)]
    return [nn.Parameter(value.clone()) for value in values], [nn.Parameter(value.clone()) for value in values]


# Orthogonalisation


@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_it_is_torchs_iteration(shape):
    matrix = drawn(*shape)
    ours = orthogonalize(matrix[None], dtype=torch.bfloat16)[0]
    assert ours.dtype == torch.bfloat16
    # torch normalises a transposed copy, whose norm may be summed in another order: one unit in bfloat16's last place.
    torch.testing.assert_close(ours.float(), torch_newton_schulz(matrix), rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_it_is_torchs_iteration_but_for_bfloat16s_roundings(shape):
    matrix = drawn(*shape)
    torch.testing.assert_close(orthogonalize(matrix[None])[0], torch_newton_schulz(matrix), rtol=0, atol=0.05)


@pytest.mark.parametrize("shape", [*SHAPES, (64, 192), (100, 30)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_end_near_one_and_vectors_stay(shape, scale):
    matrix = scale * drawn(*shape, seed=3)
    result = orthogonalize(matrix[None])[0]
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    assert values[torch.linalg.svdvals(matrix) > 0.05 * matrix.norm()].min() > 0.65  # tiny ones need more steps
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    rotated = left.T @ result @ right.T
    assert (rotated - rotated.diag().diag()).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(24, 8), (30, 29)])
def test_a_tall_matrix_gives_the_transpose_of_the_wide_one(shape):
    matrix = drawn(*shape)
    tall, wide = orthogonalize(matrix[None])[0], orthogonalize(matrix.T[None])[0]
    torch.testing.assert_close(tall, wide.T, rtol=0, atol=1e-5)


def test_matrices_of_a_batch_do_not_meet():
    matrices = drawn(5, 8, 12) * torch.tensor([1e-3, 1, 1e3, 1, 0]).view(5, 1, 1)
    together = orthogonalize(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalize(matrix[None])[0], result, rtol=0, atol=1e-5)
    assert torch.equal(together[4], torch.zeros(8, 12))  # no gradient, no update, and no division by zero


def test_more_steps_bring_small_singular_values_nearer():
    matrix = drawn(1, 12, 20)
    smallest = [torch.linalg.svdvals(orthogonalize(matrix, num_steps)).min().item() for num_steps in (0, 1, 2, 3)]
    assert smallest == sorted(smallest)
    assert smallest[-1] > 5 * smallest[0]
    torch.testing.assert_close(orthogonalize(matrix, 0), matrix / matrix.norm())


# Muon


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.95, 0.0), (0.95, 0.1), (0.0, 0.1), (0.5, 0.3)])
def test_steps_are_torchs_within_bfloat16(momentum, weight_decay):
    ours, theirs = twins()
    rate = 0.02
    descend(Muon(ours, lr=rate, momentum=momentum, weight_decay=weight_decay), ours)
    reference = torch.optim.Muon(
        theirs, lr=rate, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    descend(reference, theirs)
    for own, other, start in zip(ours, theirs, twins()[0], strict=True):
        scale = 4 * rate * 0.2 * max(own.shape) ** 0.5
        torch.testing.assert_close(own, other, rtol=0, atol=0.05 * scale)
        assert (own - start).abs().max() > 0.2 * scale  # it moved by much more than that


@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_momentum_is_torchs_exactly(momentum):
    ours, theirs = twins()
    own, other = Muon(ours, lr=0.02, momentum=momentum), torch.optim.Muon(theirs, lr=0.02, momentum=momentum)
    descend(own, ours)
    descend(other, theirs)
    for parameter, twin in zip(ours, theirs, strict=True):
        assert torch.equal(own.state[parameter]["momentum_buffer"], other.state[twin]["momentum_buffer"])


def test_weight_decay_is_torchs_exactly():
    ours, theirs = twins()
    own, other = (
        optimizer([*group], lr=0.1, weight_decay=0.3) for optimizer, group in ((Muon, ours), (torch.optim.Muon, theirs))
    )
    for parameter in [*ours, *theirs]:
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in (own, other):
        optimizer.step()
        optimizer.step()
    for parameter, twin in zip(ours, theirs, strict=True):
        assert torch.equal(parameter, twin)
    for parameter, start in zip(ours, twins()[0], strict=True):
        torch.testing.assert_close(parameter.detach(), start * 0.97**2)


def test_fused_query_key_value_are_three_matrices():
    whole = nn.Parameter(drawn(36, 12))
    parts = [nn.Parameter(part.clone()) for part in whole.detach().chunk(3)]
    fused, separate = Muon([{"params": [whole], "num_matrices": 3}], lr=0.1), Muon(parts, lr=0.1)
    for step in range(3):
        gradient = drawn(36, 12, seed=step) * torch.tensor([1.0, 10.0, 0.1]).repeat_interleave(12)[:, None]
        whole.grad = gradient
        for parameter, part in zip(parts, gradient.chunk(3), strict=True):
            parameter.grad = part.clone()
        fused.step()
        separate.step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]), rtol=0, atol=1e-5)
    as_one = nn.Parameter(drawn(36, 12))
    descend(Muon([as_one], lr=0.1), [as_one], 1)
    as_three = nn.Parameter(drawn(36, 12))
    descend(Muon([{"params": [as_three], "num_matrices": 3}], lr=0.1), [as_three], 1)
    assert (as_one - as_three).abs().max() > 0.01


def test_kernels_are_flattened():
    kernel, matrix = nn.Parameter(drawn(6, 4, 3, 3)), nn.Parameter(drawn(6, 4, 3, 3).flatten(1))
    optimizers = Muon([kernel], lr=0.1, weight_decay=0.1), Muon([matrix], lr=0.1, weight_decay=0.1)
    for step in range(3):
        kernel.grad = drawn(6, 4, 3, 3, seed=step)
        matrix.grad = kernel.grad.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    assert kernel.shape == (6, 4, 3, 3)
    torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach(), rtol=0, atol=1e-6)


def test_equal_shapes_in_one_batch_are_as_one_by_one():
    together, apart = twins([(8, 8), (8, 12), (8, 8), (8, 12)])
    descend(Muon(together, lr=0.1), together)
    descend(Muon([{"params": [parameter]} for parameter in apart], lr=0.1), apart)
    for ours, theirs in zip(together, apart, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_parameters_without_gradient_stay():
    moved, still = nn.Parameter(drawn(4, 4)), nn.Parameter(drawn(4, 4))
    optimizer = Muon([moved, still], lr=0.1, weight_decay=0.1)
    moved.grad = drawn(4, 4, seed=1)
    assert optimizer.step() is None
    assert torch.equal(still, drawn(4, 4))
    assert not torch.equal(moved, drawn(4, 4))
    assert still not in optimizer.state


def test_a_closure_is_called_with_gradients_on():
    parameter = nn.Parameter(drawn(4, 4))
    optimizer = Muon([parameter], lr=0.1)

    def closure() -> float:
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    before = parameter.detach().square().sum().item()
    assert optimizer.step(closure) == pytest.approx(before)
    assert parameter.detach().square().sum() < before


# The optimizers of a run

MODELS = {
    "conv stem, mean": {"stem": "conv", "class_token": False, "global_pool": "avg"},
    "patches, class token": {"stem": "linear", "class_token": True, "global_pool": "token"},
    "attention pooling": {"stem": "linear", "class_token": True, "global_pool": "map"},
}


def small_model(**settings: object) -> nn.Module:
    return create_model("vit_micro_conv4_8", embed_dim=16, depth=2, **settings)


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adam", "sgd"])
def test_every_parameter_is_in_one_group_and_decay_is_for_matrices(settings, optimizer):
    model = small_model(**settings)
    config = TrainingConfig(optimizer=optimizer, learning_rate=0.01, weight_decay=0.3)
    groups = [group for made in create_optimizers(model, config) for group in made.param_groups]
    names = {parameter: name for name, parameter in model.named_parameters()}
    grouped = [names[parameter] for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(names.values())
    for group in groups:
        assert group["lr"] == 0.01
        for parameter in group["params"]:
            name = names[parameter]
            plain = parameter.ndim < 2 or name in {"pos_embed", "cls_token", "attn_pool.latent"}
            assert group["weight_decay"] == (0.0 if plain else 0.3), name


def test_muon_takes_hidden_matrices_only():
    model = small_model(**MODELS["patches, class token"])
    muon, adamw = create_optimizers(model, TrainingConfig(optimizer="muon", momentum=0.9, betas=(0.8, 0.99)))
    names = {parameter: name for name, parameter in model.named_parameters()}
    taken = {
        group["num_matrices"]: sorted(names[parameter] for parameter in group["params"]) for group in muon.param_groups
    }
    hidden = [f"blocks.{block}.{part}.weight" for block in (0, 1) for part in ("attn.proj", "mlp.fc1", "mlp.fc2")]
    assert taken == {1: hidden, 3: ["blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"]}
    assert isinstance(muon, Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    assert {group["momentum"] for group in muon.param_groups} == {0.9}
    assert {group["betas"] for group in adamw.param_groups} == {(0.8, 0.99)}
    left = {names[parameter] for group in adamw.param_groups for parameter in group["params"]}
    assert {"patch_embed.proj.weight", "head.weight", "pos_embed", "cls_token", "norm.weight"} <= left


def fused_matrices(model: nn.Module) -> dict[str, int]:
    """The last parts of the names of weights that Muon takes for several matrices, and how many."""
    muon, _ = create_optimizers(model, TrainingConfig(optimizer="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        re.sub(r".*\.(\w+\.\w+)$", r"\1", names[parameter]): group["num_matrices"]
        for group in muon.param_groups
        for parameter in group["params"]
        if group["num_matrices"] > 1
    }


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("attention2d_micro_conv4_32", {"qkv.weight": 3}),
        ("cct_2_3x2_32", {"qkv.weight": 3}),
        ("timm:test_vit", {"qkv.weight": 3}),
        ("timm:test_vit4", {"qkv.weight": 3}),
        ("timm:eva02_tiny_patch14_224", {"qkv.weight": 3}),
        ("timm:eva02_base_patch14_224", {}),  # three layers of their own
        ("timm:beit_base_patch16_224", {"qkv.weight": 3}),
        ("timm:vit_base_patch16_siglip_224", {"qkv.weight": 3, "kv.weight": 2}),
        ("timm:swin_tiny_patch4_window7_224", {"qkv.weight": 3}),
        # Query, key and value differ in width, or are no three parts one after the other.
        ("timm:levit_128s", {}),
        ("timm:gcvit_xxtiny", {}),
        ("timm:lambda_resnet26t", {}),
        ("timm:shvit_s1", {}),
        ("timm:coatnet_pico_rw_224", {}),
    ],
)
def test_fused_weights_are_those_of_equal_parts(name, fused):
    with torch.device("meta"):
        model = create_model(name)
    assert {part.partition(".")[0] + ".weight": number for part, number in fused_matrices(model).items()} == fused


def test_torchs_own_attention_is_fused_too():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2))
    assert fused_matrices(model) == {"self_attn.in_proj_weight": 3}


@pytest.mark.parametrize("name", ["timm:levit_128s", "timm:test_vit"])
def test_muon_trains_backbones_of_timm(name):
    model = create_model(name, num_classes=2)
    muon, _ = create_optimizers(model, TrainingConfig(optimizer="muon"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    taken = {parameter for group in muon.param_groups for parameter in group["params"]}
    for parameter in taken:
        parameter.grad = drawn(*parameter.shape)
    muon.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name, parameter in model.named_parameters() if parameter in taken}


def test_all_of_a_convolutional_stem_stays_with_adamw():
    model = create_model("vit_micro_conv8_28", embed_dim=16, depth=1)
    muon, _ = create_optimizers(model, TrainingConfig(optimizer="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[p].partition(".")[0] for group in muon.param_groups for p in group["params"]} == {"blocks"}


@pytest.mark.parametrize(
    ("name", "stem", "head"),
    [
        ("alexnet_32", "net.features.0", "net.classifier.6"),
        ("resnet18_32", "net.conv1", "net.fc"),
        ("timm:test_resnet", "net.conv1.0", "net.fc"),
        ("timm:test_vit", "net.patch_embed.proj", "net.head"),
        ("cct_2_3x2_32", "patch_embed.convs.1", "head"),
    ],
)
def test_stem_and_head_of_every_family_stay_with_adamw(name, stem, head):
    with torch.device("meta"):
        model = create_model(name)
    muon, adamw = create_optimizers(model, TrainingConfig(optimizer="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    taken, left = (
        {names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
        for optimizer in (muon, adamw)
    )
    assert {f"{stem}.weight", f"{head}.weight"} <= left
    assert taken
    assert all(min(model.get_parameter(name).shape[:2]) > 1 for name in taken)
    # The rest is what is no map between spaces.
    hidden = {name for name in left if model.get_parameter(name).ndim >= 2 and name.endswith("weight")}
    alone = {"cct_2_3x2_32": {"patch_embed.convs.0.weight", "attention_pool.weight"}}
    if not name.startswith("timm:"):
        assert hidden == {f"{stem}.weight", f"{head}.weight"} | alone.get(name, set())


def test_kernels_of_one_channel_stay_with_adamw():
    with torch.device("meta"):
        model = create_model("timm:test_convnext")
    muon, _ = create_optimizers(model, TrainingConfig(optimizer="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    taken = {names[parameter] for group in muon.param_groups for parameter in group["params"]}
    assert any(name.endswith("mlp.fc1.weight") for name in taken)
    assert not any("conv_dw" in name for name in taken)


def test_tokens_are_not_decayed():
    model = small_model(stem="linear", class_token=True, distilled=True, reg_tokens=2, global_pool="token")
    (optimizer,) = create_optimizers(model, TrainingConfig(optimizer="adamw", weight_decay=0.3))
    names = {parameter: name for name, parameter in model.named_parameters()}
    (plain,) = ({names[p] for p in group["params"]} for group in optimizer.param_groups if not group["weight_decay"])
    assert {"cls_token", "dist_token", "reg_token", "pos_embed"} <= plain


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_other_optimizers_are_torchs(name, kind):
    (optimizer,) = create_optimizers(small_model(), TrainingConfig(optimizer=name, momentum=0.7))
    assert type(optimizer) is kind
    if name == "sgd":
        assert {group["momentum"] for group in optimizer.param_groups} == {0.7}


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = small_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name == "head.bias"
    (optimizer,) = create_optimizers(model, TrainingConfig(optimizer="adamw"))
    (group,) = optimizer.param_groups
    assert group["params"] == [model.get_parameter("head.bias")]
