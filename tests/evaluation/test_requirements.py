import pytest

from vitrail.errors import ConfigError
from vitrail.evaluation.requirements import missed_requirements


def test_required_results():
    metrics = {"accuracy": 0.9, "loss": 0.4, "ece": 0.05, "images": 10, "per_class": []}
    assert missed_requirements(metrics, {"accuracy": 0.9, "loss": 0.4, "ece": 0.06, "images": 10}) == []
    assert missed_requirements(metrics, {"accuracy": 0.900001, "loss": 0.3, "images": 11}) == [
        "accuracy is 0.9, below the required 0.900001",
        "loss is 0.4, above the required 0.3",
        "images is 10, below the required 11",
    ]
    assert missed_requirements(metrics | {"loss": float("nan")}, {"loss": 1.0}) == ["loss is nan, above the required 1"]
    with pytest.raises(
        ConfigError, match=r"There is no result 'per_class' to require\. Use one of accuracy, loss, ece"
    ):
        missed_requirements(metrics, {"per_class": 1.0})
