import numpy as np
import pytest
import torch

from vitrail.config import with_settings
from vitrail.data.loader import epoch_order
from vitrail.data.order import balanced_order
from vitrail.training.batches import open_batches, training_order


def test_the_order_is_that_of_the_epoch(small):
    labels = small.images(90, 0).labels
    assert (training_order(small.config, labels, 3) == epoch_order(90, 0, 3)).all()
    other = small.config.model_copy(update={"seed": 5})
    assert (training_order(other, labels, 3) == epoch_order(90, 5, 3)).all()


@pytest.mark.parametrize("imbalance", ["auto", "none", "class_weights", "focal", "logit_adjusted"])
def test_losses_leave_the_order_as_it_is(small, imbalance):
    config = with_settings(small.config, {"training.imbalance": imbalance})
    assert (training_order(config, np.zeros(30, np.int64), 1) == epoch_order(30, 0, 1)).all()


def test_balanced_sampling_draws_classes_equally_often(small):
    images = small.images(90, 0)
    images = images.take(np.flatnonzero((images.labels == 0) | (np.arange(90) < 15)))
    config = with_settings(small.config, {"training.imbalance": "balanced_sampling"})
    loader = open_batches(config, images, torch.device("cpu"))
    drawn = torch.cat([loader.batch(2, index)[1] for index in range(loader.num_batches)])
    expected = images.labels[balanced_order(images.labels, 0, 2)]
    assert drawn.tolist() == expected[: len(drawn)].tolist()
    counts = torch.bincount(drawn)
    assert counts.max() - counts.min() <= 8  # of an incomplete batch


def test_repeated_images_stand_side_by_side(small):
    labels = small.images(90, 0).labels
    config = with_settings(small.config, {"data.augment.repeats": 3})
    assert training_order(config, labels, 1).tolist() == epoch_order(90, 0, 1)[:30].repeat(3).tolist()


def test_repeated_images_are_balanced_and_come_in_turn(small):
    labels = np.repeat(np.arange(3, dtype=np.int64), (60, 20, 10))
    config = with_settings(small.config, {"training.imbalance": "balanced_sampling", "data.augment.repeats": 3})
    orders = [training_order(config, labels, epoch) for epoch in range(6)]
    for order in orders:
        assert len(order) == 90
        assert (order.reshape(30, 3) == order[::3, None]).all()
        assert np.bincount(labels[order]).tolist() == [30, 30, 30]
    times = np.bincount(np.concatenate(orders), minlength=90)
    assert times.tolist() == [3] * 60 + [9] * 20 + [18] * 10
