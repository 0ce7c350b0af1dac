import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vitrail.data.named import read_digits
from vitrail.evaluation import patch_features as module
from vitrail.evaluation.patch_features import learn_filters, patch_features


@pytest.fixture(scope="module")
def digits():
    images = read_digits()
    return images.pixels, images.labels


def test_vectors_tell_digits_apart_better_than_pixels(digits):
    pixels, labels = digits
    vectors = patch_features(pixels[:900])
    assert vectors.shape == (900, 2 * 2 * 2 * module.NUM_FILTERS)
    assert vectors.dtype == np.float32

    def accuracy(values):
        values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
        model = LogisticRegression(C=0.01, max_iter=60).fit(values[:600], labels[:600])
        return model.score(values[600:], labels[600:900])

    ours, plain = accuracy(vectors), accuracy(pixels[:900].reshape(900, -1).astype(float))
    assert ours > 0.93
    assert ours > plain


def test_the_answers_are_those_of_whitened_patches_of_unit_contrast():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 10, 12, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    filters = learn_filters(images, seed=3)
    rows, columns = filters.weights.shape[2:]
    assert (rows, columns) == (5, 6)
    patch = images[7, :, 2:7, 4:10].flatten()
    patch = patch - patch.mean()
    patch = patch / torch.sqrt(patch.square().mean() + 10)
    expected = (filters.weights.flatten(1) @ patch - filters.offsets).numpy()
    found = module._answers(images[7:8, :, 2:7, 4:10], filters)[0].numpy()
    both = np.concatenate([np.maximum(expected - 0.25, 0), np.maximum(-expected - 0.25, 0)])
    np.testing.assert_allclose(found.reshape(-1, 4)[:, 0], both, atol=1e-3)


def test_brightness_and_contrast_change_little(digits):
    pixels, _ = digits
    filters = learn_filters(torch.from_numpy(pixels[:500].copy()).permute(0, 3, 1, 2).float())
    images = torch.from_numpy(pixels[:20].copy()).permute(0, 3, 1, 2).float()
    plain, dim = (module._answers(shown, filters).numpy() for shown in (images, 0.5 * images + 40))
    assert np.abs(plain - dim).mean() < 0.02 * np.abs(plain).mean()


def test_the_same_seed_gives_the_same_vectors_in_blocks_of_any_size(monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (50, 9, 9, 3), dtype=np.uint8)
    once = patch_features(pixels, seed=5)
    np.testing.assert_array_equal(once, patch_features(pixels, seed=5))
    assert np.abs(once - patch_features(pixels, seed=6)).max() > 0
    heard = []
    monkeypatch.setattr(module, "BLOCK", 16)
    found = patch_features(pixels, seed=5, report=lambda done, total: heard.append((done, total)))
    np.testing.assert_allclose(found, once, atol=1e-4)
    assert heard == [(16, 50), (32, 50), (48, 50), (50, 50)]


def test_large_images_are_shrunk_and_padding_that_is_marked_is_left_out():
    pixels = np.random.default_rng(2).integers(0, 256, (8, 16, 32, 3), dtype=np.uint8)
    large = pixels.repeat(3, axis=1).repeat(3, axis=2)
    np.testing.assert_allclose(patch_features(large), patch_features(pixels), atol=1e-3)
    marked = np.concatenate([pixels, np.full((8, 16, 32, 1), 255, np.uint8)], axis=3)
    np.testing.assert_array_equal(patch_features(marked), patch_features(pixels))


@pytest.mark.parametrize("shape", [(5, 1, 1, 1), (5, 1, 40, 1), (5, 3, 2, 3), (1, 8, 8, 1), (5, 2, 300, 3)])
def test_images_of_any_shape_give_finite_vectors(shape):
    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    assert np.isfinite(patch_features(pixels)).all()
    assert np.isfinite(patch_features(np.zeros_like(pixels))).all()


def test_parts_of_a_set_share_their_filters():
    pixels = np.random.default_rng(4).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    heard = []
    parts = patch_features(pixels[:11], pixels[11:], report=lambda done, total: heard.append((done, total)))
    np.testing.assert_array_equal(parts, patch_features(pixels))
    assert heard == [(11, 30), (30, 30)]
