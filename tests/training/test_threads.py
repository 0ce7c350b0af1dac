import pytest
import torch

from vitrail.config import with_settings
from vitrail.recipes import recipe_function
from vitrail.training.threads import threads, training_threads


@pytest.fixture
def sixteen():
    with threads(16):
        yield


@pytest.mark.usefixtures("sixteen")
def test_small_steps_get_few_threads_and_large_ones_all():
    digits, mnist = recipe_function("digits")(), recipe_function("mnist")()
    assert training_threads(digits) == 1
    assert training_threads(mnist) == 3
    assert training_threads(with_settings(mnist, {"training.batch_size": 640})) == 16
    # 6 times 4.0 million multiply-adds of an image and 32 images of a micro-batch are 0.77 billion operations.
    assert training_threads(with_settings(mnist, {"training.accumulate": 2})) == 1


def test_never_more_than_torch_has():
    with threads(1):
        assert training_threads(recipe_function("s5_vit_mnist")()) == 1


def test_torch_has_its_own_number_again_also_after_an_error():
    before = torch.get_num_threads()
    with threads(before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError, match="division"), threads(before + 2):
        _ = 1 / 0
    assert torch.get_num_threads() == before
