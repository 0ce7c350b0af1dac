import logging

import numpy as np
import pytest

from vitrail.config import with_settings
from vitrail.errors import ConfigError
from vitrail.training.imbalance import CHOSEN, LEAST_RATIO, check_for_several_labels, choose_imbalance, fit_to_counts


def test_auto_leaves_balanced_classes_alone():
    assert choose_imbalance(np.array([100, 100, 100]), several=False) == ("none", None)
    assert choose_imbalance(np.array([100, 0, 90]), several=False) == ("none", None)


def test_auto_acts_from_a_ratio_on_and_says_so():
    counts = np.array([100, 100 / LEAST_RATIO]).astype(np.int64)
    chosen, reason = choose_imbalance(counts, several=False)
    assert chosen == CHOSEN
    assert reason == (
        f"The largest class has 100 images to train on, the smallest {counts[1]}: training.imbalance={CHOSEN}, "
        "and the best epoch is chosen by balanced accuracy"
    )
    assert choose_imbalance(counts + np.array([0, 2]), several=False) == ("none", None)


def test_auto_leaves_several_labels_alone():
    assert choose_imbalance(np.array([900, 1]), several=True) == ("none", None)


def test_what_auto_chose_is_in_the_config(small, caplog):
    labels = np.repeat(np.arange(3, dtype=np.int64), (50, 40, 2))
    with caplog.at_level(logging.INFO, "vitrail"):
        settled = fit_to_counts(small.config, labels)
    assert settled.training.imbalance == CHOSEN
    assert len(caplog.messages) == 1
    assert fit_to_counts(settled, labels) == settled
    assert fit_to_counts(small.config, np.arange(9, dtype=np.int64) % 3).training.imbalance == "none"


def test_what_was_asked_for_stays(small):
    config = with_settings(small.config, {"training.imbalance": "focal"})
    assert fit_to_counts(config, np.repeat(np.arange(3), (50, 40, 2))) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training.imbalance": "balanced_sampling"}, "training.imbalance=balanced_sampling needs images with one"),
        ({"evaluation.reject": 0.9}, "evaluation.reject=0.9 is for images with one label each"),
    ],
)
def test_what_several_labels_do_not_allow(small, settings, message):
    with pytest.raises(ConfigError, match=message):
        check_for_several_labels(with_settings(small.config, settings))
