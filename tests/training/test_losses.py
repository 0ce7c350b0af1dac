import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from vitrail.config import TrainingConfig
from vitrail.errors import ConfigError
from vitrail.training.losses import (
    class_counts,
    class_weights,
    focal,
    log_priors,
    num_right,
    positive_weights,
    sigmoid_focal,
    training_loss,
    weighted_cross_entropy,
)

CPU = torch.device("cpu")
LABELS = np.repeat(np.arange(3, dtype=np.int64), (80, 15, 5))
SETS = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]], np.int64)
SINGLE = ("auto", "none", "class_weights", "balanced_sampling", "focal", "logit_adjusted")
SEVERAL = ("auto", "none", "class_weights", "focal")


def loss_of(imbalance, labels=LABELS, smoothing=0.0):
    settings = TrainingConfig(imbalance=imbalance, label_smoothing=smoothing)
    return training_loss(settings, labels, 3, CPU)


@pytest.fixture
def logits():
    return 3 * torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.arange(12) % 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("imbalance", ["auto", "none", "balanced_sampling"])
def test_plain_is_cross_entropy_to_the_bit(logits, labels, imbalance, smoothing):
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert loss_of(imbalance, smoothing=smoothing)(logits, labels) == expected


@pytest.mark.parametrize("imbalance", SINGLE)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_shares_of_one_class(logits, labels, imbalance, smoothing):
    loss, shares = loss_of(imbalance, smoothing=smoothing), F.one_hot(labels, 3).float()
    torch.testing.assert_close(loss(logits, shares), loss(logits, labels))


@pytest.mark.parametrize("imbalance", SINGLE)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(logits, labels, imbalance):
    loss = loss_of(imbalance, smoothing=0.1)
    parts = [loss(logits[start : start + 4], labels[start : start + 4]) for start in (0, 4, 8)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(logits, labels))


def test_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    weights = class_weights(class_counts(LABELS, 3))
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=LABELS))
    assert weights[LABELS].mean() == pytest.approx(1)
    assert class_weights(np.array([6, 0, 2])).tolist() == [8 / 12, 0.0, 2.0]


def test_weighted_cross_entropy_is_that_of_torch(logits, labels):
    weights = torch.tensor([0.5, 1.0, 3.0])
    expected = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / len(labels)
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, weights, 0.0), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_weight_of_two_is_an_image_that_is_there_twice(logits, labels, smoothing):
    twice = torch.cat([torch.arange(12), torch.nonzero(labels == 1)[:, 0]])
    expected = F.cross_entropy(logits[twice], labels[twice], label_smoothing=smoothing, reduction="sum") / 12
    found = weighted_cross_entropy(logits, labels, torch.tensor([1.0, 2.0, 1.0]), smoothing)
    torch.testing.assert_close(found, expected)


def test_focal_loss_is_the_formula_of_the_paper(logits, labels):
    own = F.softmax(logits.double(), dim=1)[torch.arange(12), labels]
    torch.testing.assert_close(focal(logits.double(), labels, 0.0), (-((1 - own) ** 2) * own.log()).mean())


def test_focal_loss_of_what_is_sure_is_finite():
    logits = torch.tensor([[90.0, -90.0], [-90.0, 90.0]], requires_grad=True)
    loss = focal(logits, torch.tensor([0, 0]), 0.1) + sigmoid_focal(logits, torch.eye(2))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
def test_sigmoid_focal_loss_is_that_of_torchvision(logits, soft):
    targets = torch.rand(12, 3, generator=torch.Generator().manual_seed(1))
    if not soft:
        targets = targets.round()
        expected = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2, reduction="mean")
        torch.testing.assert_close(sigmoid_focal(logits, targets), expected)
    else:  # each share by its own probability, where torchvision mixes the probabilities first
        there, absent = (sigmoid_focal(logits, torch.full((12, 3), value)) for value in (1.0, 0.0))
        half = sigmoid_focal(logits, torch.full((12, 3), 0.5))
        torch.testing.assert_close(half, (there + absent) / 2)


def test_logit_adjustment_adds_the_logarithm_of_the_shares(logits, labels):
    shares = torch.tensor([0.8, 0.15, 0.05])
    expected = F.cross_entropy(logits + shares.log(), labels)
    torch.testing.assert_close(loss_of("logit_adjusted")(logits, labels), expected)
    assert np.exp(log_priors(np.array([3, 0, 1]))).tolist() == pytest.approx([0.6, 0.2, 0.2])


def test_logit_adjustment_of_equal_classes_is_cross_entropy(logits, labels):
    loss = loss_of("logit_adjusted", np.arange(9, dtype=np.int64) % 3)
    torch.testing.assert_close(loss(logits, labels), F.cross_entropy(logits, labels))


# Several labels


def test_several_labels_have_a_sigmoid_each(logits):
    targets = torch.from_numpy(np.tile(SETS, (3, 1))[:12])
    expected = F.binary_cross_entropy_with_logits(logits, targets.float())
    assert loss_of("none", SETS)(logits, targets) == expected


def test_smoothing_moves_labels_to_the_middle(logits):
    targets = torch.from_numpy(np.tile(SETS, (3, 1))[:12])
    expected = F.binary_cross_entropy_with_logits(logits, targets * 0.9 + 0.05)
    torch.testing.assert_close(loss_of("none", SETS, smoothing=0.1)(logits, targets), expected)


def test_rare_labels_count_as_much_as_their_absence(logits):
    counts = class_counts(SETS, 3)
    assert counts.tolist() == [4, 1, 1]
    assert positive_weights(counts, 5).tolist() == [0.25, 4.0, 4.0]
    assert positive_weights(np.array([0, 5]), 5).tolist() == [1.0, 1.0]
    targets = torch.from_numpy(np.tile(SETS, (3, 1))[:12]).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=torch.tensor([0.25, 4.0, 4.0]))
    torch.testing.assert_close(loss_of("class_weights", SETS)(logits, targets), expected)


@pytest.mark.parametrize("imbalance", SEVERAL)
def test_several_labels_take_integers_and_mixtures(logits, imbalance):
    targets = torch.from_numpy(np.tile(SETS, (3, 1))[:12])
    loss = loss_of(imbalance, SETS)
    assert loss(logits, targets) == loss(logits, targets.float())
    assert loss(logits, 0.7 * targets + 0.3 * targets.flip(0)).isfinite()


@pytest.mark.parametrize("imbalance", ["balanced_sampling", "logit_adjusted"])
def test_what_several_labels_do_not_allow(imbalance):
    message = rf"^training\.imbalance={imbalance} needs images with one label each.*; use class_weights, focal or none$"
    with pytest.raises(ConfigError, match=message):
        loss_of(imbalance, SETS)


def test_an_image_is_right_with_its_class_or_exactly_its_labels():
    logits = torch.tensor([[2.0, 1.0, -1.0], [-1.0, 3.0, -2.0]])
    assert num_right(logits, torch.tensor([0, 2])) == 1
    assert num_right(logits, torch.tensor([[1, 1, 0], [0, 1, 0]])) == 2
    assert num_right(logits, torch.tensor([[1, 0, 0], [0, 1, 1]])) == 0


# In a run


@pytest.mark.parametrize("imbalance", ["class_weights", "balanced_sampling", "focal", "logit_adjusted"])
def test_a_run_with_rare_classes_is_resumed_exactly(small, tmp_path, imbalance):
    settings = {
        "training.imbalance": imbalance,
        "training.label_smoothing": 0.1,
        "training.accumulate": 2,
        "data.augment.mixup_alpha": 0.3,
        "data.augment.cutmix_rate": 0.3,
    }
    images = small.images(60, 0)
    images = images.take(np.flatnonzero((images.labels > 0) | (np.arange(60) < 40)))
    expected = small.outcome(small.train(settings, images, path=tmp_path / "whole"))
    stopped = small.start(tmp_path / "run", settings, images)
    with pytest.raises(StopIteration):
        stopped.run(after(4))
    assert small.outcome(small.train(settings, images)) == expected
    line = small.metrics(tmp_path / "run")[-1]
    assert list(line) == ["split", "epoch", "accuracy", "balanced_accuracy", "loss"]
    plain = small.outcome(small.train(settings | {"training.imbalance": "none"}, images, path=tmp_path / "plain"))
    assert plain["state"] != expected["state"]


def after(step):
    def report(progress):
        if progress.step > step:
            raise StopIteration

    return report
