import numpy as np
import pytest
import torch
from torch import nn

from vitrail.data.dataset import ImageSet
from vitrail.errors import ConfigError, DataError
from vitrail.interpretation import gathering
from vitrail.interpretation.gathering import Look, gather_tokens, gather_vectors, num_images, sample
from vitrail.models import create_model, model_config

CPU = torch.device("cpu")
TINY = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}


def images(number: int, channels: int = 3, seed: int = 0) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (number, 16, 16, channels), dtype=np.uint8)
    return ImageSet(pixels, np.arange(number) % 3, tuple(map(str, range(number))))


def made(name: str = "vit_tiny_patch16_224", **settings) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **{**TINY, **settings}).eval()


def look(model: nn.Module, parts, report=None) -> Look:
    return Look(model, CPU, model.config, (16, 16), parts, "None are here", report)


def test_batches_make_no_difference():
    model, pixels = made(reg_tokens=1), images(10).pixels
    whole, parts = (gather_tokens(model, pixels, CPU, size) for size in (10, 3))
    assert (whole.names, whole.grid, whole.norms.shape, whole.prefix_norms.shape) == (
        ("0", "1"),
        (4, 4),
        (2, 10, 16),
        (2, 2),
    )
    np.testing.assert_allclose(whole.norms, parts.norms, rtol=1e-5)
    np.testing.assert_allclose(whole.prefix_norms, parts.prefix_norms, rtol=1e-5)
    heard = []
    one, three = (gather_vectors(model, pixels, CPU, size, heard.append) for size in (10, 3))
    assert heard == [10, 3, 6, 9, 10]
    for a, b in zip([*one.vectors, one.logits], [*three.vectors, three.logits], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        tokens = model.features(torch.from_numpy(pixels).permute(0, 3, 1, 2)).blocks[1].tokens
    np.testing.assert_allclose(one.vectors[1], tokens[:, 0], rtol=1e-4, atol=1e-6)  # the head reads the class token
    np.testing.assert_allclose(whole.norms[1], tokens[:, 2:].norm(dim=2), rtol=1e-4)


def test_the_same_tokens_of_each_layer_are_kept(monkeypatch):
    monkeypatch.setattr(gathering, "MOST_ROWS", 20)
    model, pixels = made(), images(10).pixels
    first, again = (gather_tokens(model, pixels, CPU, 4) for _ in range(2))
    assert 20 <= len(first.rows[0]) == len(first.rows[1]) <= 22
    np.testing.assert_array_equal(first.rows[1], again.rows[1])
    with torch.no_grad():
        blocks = model.features(torch.from_numpy(pixels).permute(0, 3, 1, 2)).blocks
    early, late = (block.tokens.flatten(0, 1).numpy() for block in blocks)
    for one, other in zip(first.rows[0], first.rows[1], strict=True):
        place = int(np.abs(early - one).sum(axis=1).argmin())
        np.testing.assert_allclose(late[place], other, rtol=1e-4, atol=1e-5)


def test_padding_has_no_norm():
    model = made(padding_mask=True)
    pixels = images(3, channels=4).pixels
    pixels[..., 3] = 255
    pixels[1, :, 8:, 3] = 0
    found = gather_tokens(model, pixels, CPU, 2)
    assert np.isnan(found.norms).sum(axis=2).tolist() == [[0, 8, 0]] * 2
    assert all(np.isfinite(rows).all() for rows in found.rows)


def test_maps_of_several_sizes_have_rows_but_no_norms():
    torch.manual_seed(0)
    found = gather_tokens(create_model("resnet18", small_images=True, image_size=16).eval(), images(5).pixels, CPU, 5)
    assert found.norms.size == 0
    assert [rows.shape for rows in found.rows] == [(20, width) for width in (64, 64, 128, 256, 512)]


def test_a_look_gathers_once_and_says_how_far_it_is():
    heard = []
    parts = {"train": images(9), "validation": images(6, seed=1), "test": images(0)}
    found = look(made(), parts, lambda *counts: heard.append(counts))
    assert set(found.images) == {"train", "validation"}  # the empty one is as one that is not there
    assert found.part("test", "validation")[0] == "validation"
    assert found.attention is found.attention
    assert found.attention.num_images == found.tokens.norms.shape[1] == 6
    vectors, labels = found.vectors("train")
    found.vectors("validation")
    assert (len(vectors.logits), labels.tolist()) == (9, [0, 1, 2] * 3)
    assert heard == [(9, 15), (15, 15)]


def test_what_is_not_there_is_said():
    found = look(made(), {"train": images(4)})
    with pytest.raises(DataError, match=r"^There are no validation images to look at, but those of train$"):
        found.vectors("validation")
    with pytest.raises(DataError, match=r"^None are here$"):
        look(made(), {}).vectors("train")
    torch.manual_seed(0)
    cnn = create_model("resnet18", small_images=True, image_size=16).eval()
    with pytest.raises(ConfigError, match=r"^resnet18 has no attention"):
        look(cnn, {"train": images(4)}).attention  # noqa: B018


def test_more_tokens_mean_fewer_images(monkeypatch):
    monkeypatch.setattr(gathering, "_MOST_TOKENS", 6)
    monkeypatch.setattr(gathering, "MOST_ATTENDING", 72)
    found = look(made(), {"validation": images(40)})  # 17 tokens
    assert found.tokens.norms.shape[1] == round(72 * (6 / 17) ** 2)


def test_samples_are_the_same_each_time():
    whole = images(20)
    part = sample(whole, 5)
    assert [int(name) for name in part.names] == sorted(int(name) for name in part.names)
    assert part.names == sample(whole, 5).names
    assert sample(whole, 20) is whole


def test_large_models_look_at_fewer_images_on_a_cpu():
    small = model_config("vit_tiny_patch16_224", **TINY)
    assert num_images(small, 10_000, (16, 16), CPU) == 1000
    base = model_config("vit_base_patch16_224")
    found = num_images(base, 86_000_000, (224, 224), CPU)
    assert 50 <= found <= 150
    assert num_images(base, 86_000_000, (448, 448), CPU) == gathering.LEAST_IMAGES
    assert num_images(base, 86_000_000, (224, 224), torch.device("cuda")) == 1000
