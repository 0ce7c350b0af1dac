import pytest
import torch
from torch import Tensor

from vitrail.models import create_model, model_config, paper
from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig

SIZES = {
    "image_size": 12,
    "patch_size": 4,
    "in_chans": 2,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 4,
}


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def scrambled(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        parameter.data.normal_(mean=float(is_scale), std=0.3, generator=generator)
    return model.eval()


@pytest.mark.parametrize("size", [12, 20])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_that_trains_takes_the_papers_weights_and_gives_equal_logits(size: int, training: bool) -> None:
    theirs = scrambled(paper.ViT(**{**SIZES, "image_size": size})).train(training)
    ours = VisionTransformer(ViTConfig.model_validate({**SIZES, "image_size": size})).train(training)
    ours.load_state_dict(theirs.state_dict())
    first, second = (images(3, 2, size, size).requires_grad_() for _ in range(2))
    expected, logits = theirs((first - 0.5) / 0.5), ours(second)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1
    for out in (expected, logits):
        out.square().sum().backward()
    torch.testing.assert_close(second.grad, first.grad, rtol=1e-4, atol=1e-4)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    torch.testing.assert_close(gradients, wanted, rtol=1e-3, atol=1e-3)


def test_the_papers_model_takes_the_weights_of_the_one_that_trains() -> None:
    torch.manual_seed(0)
    ours = create_model("s5_vit").eval()
    theirs = paper.ViT(28, 7, 1, 10, embed_dim=100, depth=3, num_heads=2).eval()
    theirs.load_state_dict(ours.state_dict())
    batch = images(2, 1, 28, 28)
    torch.testing.assert_close(theirs((batch - 0.5) / 0.5), ours(batch), rtol=1e-5, atol=1e-5)


def test_parameters_have_the_same_names_in_the_same_order() -> None:
    ours = VisionTransformer(ViTConfig.model_validate(SIZES))
    shapes = [(name, tuple(parameter.shape)) for name, parameter in paper.ViT(**SIZES).named_parameters()]
    assert sorted(shapes) == sorted((name, tuple(parameter.shape)) for name, parameter in ours.named_parameters())


def test_the_defaults_are_vit_base() -> None:
    with torch.device("meta"):
        model = paper.ViT()
    assert sum(parameter.numel() for parameter in model.parameters()) == 86_567_656
    defaults = ViTConfig()
    assert defaults == model_config("vit_base_patch16_224")


@pytest.mark.parametrize("name", ["patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.2.attn.qkv.bias"])
def test_a_change_of_any_part_changes_the_logits(name: str) -> None:
    model = scrambled(paper.ViT(**SIZES))
    batch = images(2, 2, 12, 12)
    before = model(batch)
    dict(model.named_parameters())[name].data += noise_like(dict(model.named_parameters())[name])
    assert (model(batch) - before).abs().max() > 1e-3


def noise_like(parameter: Tensor) -> Tensor:
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
