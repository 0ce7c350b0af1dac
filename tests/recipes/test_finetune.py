"""The recipe for trainings that begin with weights."""

from vitrail.models import count_parameters
from vitrail.recipes.finetune import finetune


def test_it_changes_weights_little() -> None:
    config = finetune()
    assert config.recipe == "finetune"
    assert config.init is None
    assert count_parameters(config.model) == 5_717_416
    assert config.training.learning_rate <= 1e-4
    assert config.training.optimizer == "adamw"
