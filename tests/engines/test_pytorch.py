import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from vitrail.checkpoint import load_model
from vitrail.engines import pytorch
from vitrail.engines.pytorch import TorchEngine, forward_batches, resolve_device
from vitrail.errors import ConfigError
from vitrail.models import create_model

CPU = torch.device("cpu")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("vit_micro_conv4_8", embed_dim=16, depth=1, drop_rate=0.5, proj_drop_rate=0.5)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def without_accelerators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def with_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_takes_the_fastest_that_is_there(monkeypatch):
    without_accelerators(monkeypatch)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    with_gpus(monkeypatch, 1)
    assert resolve_device("auto") == torch.device("cuda", 0)


def test_devices_by_name(monkeypatch):
    with_gpus(monkeypatch, 2)
    assert resolve_device("cpu") == CPU
    assert resolve_device("cuda") == resolve_device("cuda:0") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["gpu", "", "cuda0", "cpu:0", "mps:1", "cuda:x", "cuda:-1", "CUDA"])
def test_unknown_devices_are_refused(name):
    message = rf"^device='{name}' is not known; use auto, cpu, cuda, cuda:N or mps$"
    with pytest.raises(ConfigError, match=message):
        resolve_device(name)


def test_devices_that_are_not_there_are_refused(monkeypatch):
    without_accelerators(monkeypatch)
    message = r"^device='cuda' is not there: this machine has no CUDA device; use auto or cpu$"
    with pytest.raises(ConfigError, match=message):
        resolve_device("cuda")
    with pytest.raises(ConfigError, match=r"^device='mps' is not there: .*no Apple GPU"):
        resolve_device("mps")
    for count, found in ((1, "1 CUDA device"), (2, "2 CUDA devices")):
        with_gpus(monkeypatch, count)
        with pytest.raises(ConfigError, match=rf"^device='cuda:2' is not there: this machine has {found}; "):
            resolve_device("cuda:2")


@pytest.mark.parametrize("values", [64, 64 * 3, 64 * 7, 64 * 1000])
def test_the_size_of_batches_does_not_change_logits(model, monkeypatch, values):
    pixels = torch.from_numpy(images(20)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model.eval()(pixels)
    monkeypatch.setattr(pytorch, "MEMORY_VALUES", values)  # 64 values an image: batches of 1, 3, 7 and all
    logits = forward_batches(model, pixels, CPU)
    assert (logits.shape, logits.dtype) == ((20, 10), torch.float32)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_batches_are_bounded_by_memory_and_in_number(monkeypatch):
    sizes = []

    class Recorder(nn.Module):
        def forward(self, batch):
            sizes.append(len(batch))
            return batch.flatten(1).float()[:, :2]

    forward_batches(Recorder(), torch.zeros(1100, 1, 2, 2, dtype=torch.uint8), CPU)
    assert sizes == [512, 512, 76]
    sizes.clear()
    monkeypatch.setattr(pytorch, "MEMORY_VALUES", 10)
    forward_batches(Recorder(), torch.zeros(3, 1, 4, 4, dtype=torch.uint8), CPU)  # one image is more than that
    assert sizes == [1, 1, 1]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_restored(model, training):
    model.train(training)
    pixels = torch.from_numpy(images(6)).permute(0, 3, 1, 2)
    assert torch.equal(forward_batches(model, pixels, CPU), forward_batches(model, pixels, CPU))
    assert {module.training for module in model.modules()} == {training}


def test_the_mode_is_restored_after_an_error_too(model):
    model.train()
    with pytest.raises(ConfigError, match=r"takes images of"):
        forward_batches(model, torch.zeros(2, 3, 8, 8, dtype=torch.uint8), CPU)
    assert model.training


def test_the_engine_takes_images_as_users_have_them(model):
    engine = TorchEngine(model, CPU)
    assert not engine.model.training
    pixels = images(5)
    logits = engine.logits(pixels)
    assert (logits.shape, logits.dtype) == ((5, 10), np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_the_engine_takes_arrays_that_cannot_be_written_to(model):
    pixels = images(2)
    pixels.flags.writeable = False
    assert TorchEngine(model, CPU).logits(pixels).shape == (2, 10)


@pytest.mark.parametrize("values", [64 * 3, 64 * 1000])
@pytest.mark.parametrize("pooling", ["token", "avg", "map"])
def test_features_are_what_the_head_makes_logits_of(monkeypatch, pooling, values):
    monkeypatch.setattr(pytorch, "MEMORY_VALUES", values)  # batches of 3, and all
    torch.manual_seed(0)
    model = create_model("vit_micro_conv4_8", embed_dim=16, num_heads=2, depth=1, global_pool=pooling, class_token=True)
    engine = TorchEngine(model, CPU)
    logits, features = engine.logits_and_features(images(7))
    assert (features.shape, features.dtype) == ((7, 16), np.float32)
    np.testing.assert_allclose(logits, engine.logits(images(7)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.head(torch.from_numpy(features)).detach().numpy(), logits, rtol=1e-5, atol=1e-6)


def test_a_model_without_features_gives_its_logits_for_them():
    class Corner(nn.Module):
        def forward(self, batch):
            return batch.flatten(1).float()[:, :2]

    logits, features = TorchEngine(Corner(), CPU).logits_and_features(images(3))
    np.testing.assert_array_equal(logits, features)


@pytest.mark.parametrize("pooling", ["token", "avg", "token_avg"])
def test_features_with_merged_tokens_are_those_of_the_logits_with_merged_tokens(pooling):
    torch.manual_seed(0)
    settings = {"embed_dim": 16, "num_heads": 2, "depth": 2, "stem": "linear", "patch_size": 2, "class_token": True}
    model = create_model("vit_micro_conv4_8", global_pool=pooling, pos_embed_std=1.0, **settings)
    engine = TorchEngine(model, CPU)
    plain = engine.logits(images(3))
    model.merge_tokens(3)
    logits, features = engine.logits_and_features(images(3))
    np.testing.assert_array_equal(logits, engine.logits(images(3)))
    np.testing.assert_allclose(model.head(torch.from_numpy(features)).detach().numpy(), logits, rtol=1e-5, atol=1e-6)
    assert np.abs(logits - plain).max() > 1e-5


# Images of many sizes

SIZES = [(8, 8), (12, 4), (4, 16), (8, 8), (20, 20), (4, 4), (12, 8)]


def images_of_many_sizes(channels: int = 1) -> list[np.ndarray]:
    numbers = np.random.default_rng(0)
    return [numbers.integers(0, 256, (*size, channels), dtype=np.uint8) for size in SIZES]


@pytest.mark.parametrize("values", [1, 300, 2**22])
@pytest.mark.parametrize("stem", ["linear", "conv"])
@pytest.mark.parametrize("pooling", ["token", "avg", "map"])
def test_each_of_many_sizes_has_the_logits_it_has_alone(monkeypatch, pooling, stem, values):
    torch.manual_seed(0)
    settings = {"embed_dim": 16, "num_heads": 2, "depth": 2, "stem": stem, "class_token": True, "pos_embed_std": 1.0}
    engine = TorchEngine(create_model("vit_micro_conv4_8", global_pool=pooling, **settings), CPU)
    given = images_of_many_sizes()
    alone = np.concatenate([engine.logits(image[None]) for image in given])
    sizes = []
    engine.model.register_forward_pre_hook(lambda model, inputs: sizes.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(pytorch, "MEMORY_VALUES", values)
    np.testing.assert_allclose(engine.native_logits(given), alone, rtol=1e-4, atol=1e-5)
    assert all(np.prod(size) <= max(values, 400) for size in sizes)
    assert len(sizes) == {1: 7, 2**22: 1}.get(values, len(sizes))


def test_many_sizes_are_refused_by_what_cannot_take_them(model):
    with pytest.raises(ConfigError, match=r"^This model takes images of one size in a batch; resize them"):
        TorchEngine(nn.Flatten(), CPU).native_logits(images_of_many_sizes())
    with pytest.raises(ConfigError, match=r"^There are no images to pad"):
        TorchEngine(model, CPU).native_logits([])
    torch.manual_seed(0)
    merging = create_model("vit_micro_conv4_8", embed_dim=16, depth=1)
    merging.merge_tokens(2)
    with pytest.raises(ConfigError, match=r"^Merged tokens and masked or padded images do not go together"):
        TorchEngine(merging, CPU).native_logits(images_of_many_sizes())


def test_the_digest_is_that_of_the_weights_file(digits_run):
    model, _ = load_model(digits_run)
    written = hashlib.sha256((digits_run / "model.safetensors").read_bytes()).hexdigest()
    assert TorchEngine(model, CPU).digest() == written
    with torch.no_grad():
        model.head.bias += 1
    assert TorchEngine(model, CPU).digest() != written
