import numpy as np
import pytest
import torch
from attending_models import small_model
from torch import Tensor, nn

from vitrail.engines.pytorch import TorchEngine
from vitrail.interpretation.subjects import Subject, model_name
from vitrail.models.cnn import CnnConfig
from vitrail.models.config import ImageModelConfig

CPU = torch.device("cpu")


class Answers:
    """An engine that knows no torch, as an exported model's."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :2].astype(np.float32)


def test_a_torch_engine_is_explained_by_its_model() -> None:
    model = small_model("mean")
    engine = TorchEngine(model, CPU)
    subject = Subject.of(engine, model.config)
    assert (subject.model, subject.device) == (model, CPU)
    images = np.zeros((2, 16, 24, 3), np.uint8)
    np.testing.assert_array_equal(subject.answer(images), engine.logits(images))


def test_another_engine_leaves_its_answers() -> None:
    subject = Subject.of(Answers(), ImageModelConfig(kind="any", mean=(0.2, 0.4, 0.6)))
    assert subject.model is None
    assert subject.answer(np.full((1, 2, 2, 3), 7, np.uint8)).tolist() == [[7, 7]]


@pytest.mark.parametrize(("mean", "fill"), [((0.2, 0.4, 0.6), [51, 102, 153]), (None, [127.5] * 3)])
def test_nothing_looks_like_the_models_mean(mean: tuple[float, ...] | None, fill: list[float]) -> None:
    subject = Subject.of(Answers(), ImageModelConfig(kind="any", mean=mean))
    assert subject.fill.dtype == np.float32
    np.testing.assert_allclose(subject.fill, fill, rtol=1e-6)


def test_the_padding_is_no_colour() -> None:
    model = small_model("masked mean")
    subject = Subject.of(TorchEngine(model, CPU), model.config)
    assert (subject.fill.shape, subject.blank().shape) == ((3,), (1, 16, 24, 4))


def test_weights_for_inference_alone_are_copied() -> None:
    with torch.inference_mode():
        model = small_model("mean")
        model.to(torch.float64).to(torch.float32)  # now all tensors were made for inference
        assert next(model.parameters()).is_inference()
        subject = Subject.of(TorchEngine(model, CPU), model.config)
    assert subject.model is not None
    assert subject.model is not model
    assert not any(tensor.is_inference() for tensor in subject.model.state_dict().values())
    for name, tensor in subject.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_a_model_is_evaluated_and_then_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout())).train()
    model[1].eval()
    subject = Subject(lambda images: images, np.zeros(3, np.float32), model)
    seen: list[bool] = []

    def explained() -> Tensor:
        with torch.inference_mode(), subject.evaluated():
            seen.extend(module.training for module in model.modules())
            weight = model[0].weight.sum()
            assert weight.requires_grad
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        explained()
    assert not any(seen)
    assert [module.training for module in model.modules()] == [True, True, False, True, True]


def test_models_are_called_by_their_architecture() -> None:
    assert model_name(small_model("timm class token")) == "timm's test_vit"
    assert model_name(small_model("convolutions")) == CnnConfig().architecture == "resnet18"
    assert model_name(small_model("mean")) == "VisionTransformer"
