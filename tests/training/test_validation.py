import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

from vitrail.config import TrainingConfig
from vitrail.data.dataset import ImageSet
from vitrail.training.validation import best_by, validate

CPU = torch.device("cpu")


class First(nn.Module):
    """Logits that are the first three values of an image."""

    def forward(self, images):
        return images.flatten(1)[:, :3].float() / 64 - 2


def images_of(labels, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 2, 2, 1), dtype=np.uint8)
    return ImageSet(pixels, np.array(labels, np.int64), ("noise",) * len(labels))


@pytest.mark.parametrize(
    ("imbalance", "ndim", "expected"),
    [
        ("none", 1, "accuracy"),
        ("auto", 1, "accuracy"),
        ("focal", 1, "balanced_accuracy"),
        ("balanced_sampling", 1, "balanced_accuracy"),
        ("none", 2, "mean_average_precision"),
        ("class_weights", 2, "mean_average_precision"),
    ],
)
def test_what_the_best_epoch_is_chosen_by(imbalance, ndim, expected):
    assert best_by(TrainingConfig(imbalance=imbalance), np.zeros((2,) * ndim, np.int64)) == expected


def test_one_label():
    images = images_of(np.repeat([0, 1, 2], (20, 8, 2)))
    logits = First()(torch.from_numpy(images.pixels))
    plain = validate(First(), images, CPU, "accuracy")
    assert list(plain) == ["accuracy", "loss"]
    assert plain["accuracy"] == metrics.accuracy_score(images.labels, logits.argmax(dim=1))
    assert plain["loss"] == pytest.approx(metrics.log_loss(images.labels, logits.double().softmax(dim=1)), rel=1e-6)
    balanced = validate(First(), images, CPU, "balanced_accuracy")
    expected = metrics.balanced_accuracy_score(images.labels, logits.argmax(dim=1))
    assert balanced == {**plain, "balanced_accuracy": pytest.approx(expected)}


def test_a_class_without_images_does_not_count():
    images = images_of([0, 0, 2])
    logits = First()(torch.from_numpy(images.pixels))
    expected = metrics.recall_score(images.labels, logits.argmax(dim=1), labels=[0, 2], average="macro")
    assert validate(First(), images, CPU, "balanced_accuracy")["balanced_accuracy"] == pytest.approx(expected)


def test_several_labels():
    images = images_of((np.random.default_rng(1).random((50, 3)) < 0.4).astype(np.int64))
    logits = First()(torch.from_numpy(images.pixels))
    found = validate(First(), images, CPU, "mean_average_precision")
    assert list(found) == ["accuracy", "mean_average_precision", "loss"]
    assert found["accuracy"] == metrics.accuracy_score(images.labels, logits > 0)
    expected = metrics.average_precision_score(images.labels, logits.numpy())
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["loss"] == pytest.approx(
        np.mean([metrics.log_loss(images.labels[:, k], logits[:, k].double().sigmoid()) for k in range(3)]), rel=1e-6
    )


def test_no_labels_at_all():
    assert validate(First(), images_of(np.zeros((4, 3))), CPU, "mean_average_precision")["mean_average_precision"] == 0


def test_images_are_gone_through_in_blocks(monkeypatch):
    images = images_of(np.arange(30) % 3)
    whole = validate(First(), images, CPU, "balanced_accuracy")
    monkeypatch.setattr(ImageSet, "blocks", lambda self: (self.pixels[start : start + 7] for start in range(0, 30, 7)))
    assert validate(First(), images, CPU, "balanced_accuracy") == whole
