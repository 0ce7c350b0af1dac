import re

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.checkpoint import ModelCard
from vitrail.data.preprocess import Preprocess
from vitrail.engines.adaptation import adapted, parse_size
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError
from vitrail.models import create_model, model_config


def model_and_card(**settings) -> tuple[nn.Module, ModelCard]:
    settings = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, **settings}
    model = create_model("vit_tiny_patch16_224", num_classes=2, **settings)
    size = model.config.image_size
    card = ModelCard(
        model_name="small",
        model=model.config,
        classes=("a", "b"),
        preprocess=Preprocess(image_size=size, channels=3, fit="crop"),
    )
    return model, card


@pytest.mark.parametrize(
    ("given", "size"),
    [(96, (96, 96)), ("96", (96, 96)), ("96x128", (96, 128)), (" 96 X 128", (96, 128)), ((8, 9), (8, 9))],
)
def test_sizes_in_every_form(given, size):
    assert parse_size(given) == size


def test_sizes_may_be_numpys_numbers():
    size = parse_size(np.array([8, 9]))
    assert size == (8, 9)
    assert {type(side) for side in size} == {int}
    assert parse_size(np.int64(8)) == (8, 8)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "96x",
        "0",
        "-4",
        "1.5",
        "4x4x4",
        0,
        (4, 0),
        (1, 2, 3),
        (),
        9.5,
        True,
        (96.5, 32),
        (96, "32"),
        [True, 8],
        {"rows": 8},
    ],
)
def test_what_is_no_size_is_refused(given):
    with pytest.raises(ConfigError, match=rf"^image_size={re.escape(str(given))} is no size in pixels; write 96 for "):
        parse_size(given)


def test_another_size_changes_the_preprocessing_alone():
    model, card = model_and_card()
    for size in (24, "8x12", (32, 16)):
        other = adapted(model, card, size)
        assert other.preprocess == card.preprocess.model_copy(update={"image_size": parse_size(size)})
        assert other.model_copy(update={"preprocess": card.preprocess}) == card
        with torch.no_grad():
            assert model(torch.zeros(2, 3, *other.preprocess.image_size)).shape == (2, 2)
    assert adapted(model, card, None) is card
    assert adapted(model, card, 16) is card


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (30, "image_size=30 is not a multiple of patch_size=4; use 28 or 32"),
        ("16x30", "image_size=30 is not a multiple of patch_size=4; use 16x28 or 16x32"),
        (3, "image_size=3 is not a multiple of patch_size=4; use 8"),
        (4, "patch_size=4x4 leaves one patch, and nothing to attend to; use 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest(size, problem):
    model, card = model_and_card()
    with pytest.raises(ConfigError, match=f"^{re.escape(f'image_size={size} does not fit small: {problem}')}$"):
        adapted(model, card, size)


def test_a_network_that_only_finds_out_as_it_runs(monkeypatch):
    class Halving(nn.Module):
        def forward(self, images):
            return nn.functional.max_pool2d(images.float(), 8).flatten(1)

    _, card = model_and_card(stem="conv")
    monkeypatch.setattr("vitrail.engines.adaptation.build_model", lambda config: Halving())
    assert adapted(Halving(), card, 24).preprocess.image_size == (24, 24)
    with pytest.raises(ConfigError, match=r"^image_size=5 does not fit small: .*too small; use another$"):
        adapted(Halving(), card, 5)


def test_checking_a_size_leaves_the_weights_and_the_random_numbers_alone():
    model, card = model_and_card(pos_embed="rope")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    adapted(model, card, "1000x20000")  # more than fits in memory, were it computed
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_merging_is_set_and_taken_back():
    model, card = model_and_card(depth=2)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        plain = model(images)
        assert adapted(model, card, None, merge_tokens=4) is card
        merged = model(images)
        adapted(model, card, None)
        assert torch.equal(model(images), plain)
    assert not torch.allclose(merged, plain, atol=1e-4)


def test_merging_is_refused_where_it_makes_no_sense():
    model, card = model_and_card(pos_embed="rope")
    with pytest.raises(ConfigError, match=r"^Tokens of a model with pos_embed='rope' cannot be merged"):
        adapted(model, card, None, merge_tokens=2)
    with pytest.raises(ConfigError, match=r"^merge_tokens=-1 is not possible; use 0 or more$"):
        adapted(model, card, None, merge_tokens=-1)
    with pytest.raises(ConfigError, match=r"^merge_tokens=2 is not possible for small; only a ViT merges tokens$"):
        adapted(nn.Linear(2, 2), card, None, merge_tokens=2)
    assert adapted(nn.Linear(2, 2), card, None) is card


@pytest.mark.parametrize("name", ["resnet18_32", "cct_2_3x2_32", "attention2d_micro_conv4_32"])
def test_other_families_take_other_sizes_too(name):
    model = create_model(name, num_classes=2)
    preprocess = Preprocess(image_size=model.config.image_size, channels=3, fit="crop")
    card = ModelCard(model_name=name, model=model.config, classes=("a", "b"), preprocess=preprocess)
    size = adapted(model, card, "40x24").preprocess.image_size
    images = np.zeros((2, *size, 3), np.uint8)
    engine = TorchEngine(model, torch.device("cpu"))
    logits, features = engine.logits_and_features(images)
    assert (logits.shape, len(features), features.shape[1] > 2) == ((2, 2), 2, True)
    np.testing.assert_allclose(logits, engine.logits(images), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=rf"^merge_tokens=2 is not possible for {name}; only a ViT merges tokens$"):
        adapted(model, card, None, merge_tokens=2)


def test_a_size_too_small_for_a_network_is_refused_in_its_own_words():
    config = model_config("alexnet", num_classes=2)
    preprocess = Preprocess(image_size=config.image_size, channels=3, fit="crop")
    card = ModelCard(model_name="alexnet", model=config, classes=("a", "b"), preprocess=preprocess)
    with pytest.raises(
        ConfigError, match=r"^image_size=40 does not fit alexnet: image_size=40 is too small for .*; use 63 or more$"
    ):
        adapted(nn.Identity(), card, 40)
