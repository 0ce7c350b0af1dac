import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitrail import explanations
from vitrail.checkpoint import ModelCard
from vitrail.classifier import Explained
from vitrail.data.preprocess import Placement, Preprocess, placement, prepare
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError
from vitrail.explanations import Explanation, Question, explained
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target
from vitrail.models import build_model, model_config
from vitrail.predictions import Prediction

WHOLE = Placement(0, 0, 1, 1)


def explanation(
    cells: np.ndarray, shape: tuple[int, int] = (20, 30), method: str = "relevance", where: Placement = WHOLE
) -> Explanation:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    prediction = Prediction("a.jpg", "cat", 0.75, (("cat", 0.75), ("dog", 0.25)))
    cells = cells.astype(np.float32)
    return Explanation("a.jpg", "vit", prediction, "cat", None, method, None, None, cells, pixels, shape, where)


def card(classes: tuple[str, ...] = ("cat", "dog"), **how) -> ModelCard:
    return ModelCard(
        model_name="vit_micro_conv4_8",
        model=model_config("vit_micro_conv4_8", num_classes=len(classes) or 1),
        classes=classes,
        preprocess=Preprocess(**{"image_size": (8, 8), "channels": 1, "fit": "pad", **how}),
    )


def subject(of: ModelCard) -> Subject:
    return Subject.of(TorchEngine(build_model(of.model), Subject.device), of.model)


# The map over the image


@pytest.mark.parametrize("shape", [(20, 30), (7, 9), (3, 2), (64, 5)])
def test_heat_is_pillows_linear_interpolation(shape):
    cells = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    expected = Image.fromarray(cells).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(explanation(cells, shape).heat(), np.asarray(expected), atol=1e-6)
    padded = Placement(-0.5, -0.25, 1.25, 1.5)
    box = (9 * 0.5 / 1.75, 7 * 0.25 / 1.75, 9 * 1.5 / 1.75, 7 * 1.25 / 1.75)
    expected = Image.fromarray(cells).resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box)
    np.testing.assert_allclose(explanation(cells, shape, where=padded).heat(), np.asarray(expected), atol=1e-5)


def test_what_was_cropped_away_has_no_heat():
    heat = explanation(np.ones((4, 4)), (20, 40), where=Placement(0.25, 0, 0.75, 1)).heat()
    assert (heat.shape, heat.dtype) == ((20, 40), np.float32)
    seen = ~np.isnan(heat)
    assert seen[:, 10:30].all()
    assert not seen[:, :10].any()
    assert not seen[:, 30:].any()
    np.testing.assert_allclose(heat[seen], 1)
    narrow = explanation(np.ones((4, 4)), (1, 40), where=Placement(0.495, 0, 0.505, 1)).heat()
    assert (~np.isnan(narrow)).sum() == 1  # less than a pixel


@given(
    shape=st.tuples(st.integers(30, 90), st.integers(30, 90)),
    size=st.tuples(st.integers(16, 60), st.integers(16, 60)),
    fit=st.sampled_from(["pad", "crop", "squash", "native"]),
    crop_rate=st.sampled_from([1.0, 0.875]),
)
def test_heat_lies_where_the_models_pixels_come_from(shape, size, fit, crop_rate):
    """A map that is the model's own image, laid over the original, is the original, but for detail."""
    down, across = np.mgrid[0 : shape[0], 0 : shape[1]]
    scene = 128 + 60 * np.sin(3 * down / shape[0] + 1) * np.cos(4 * across / shape[1])
    image = Image.fromarray(scene.round().astype(np.uint8))
    preprocess = Preprocess(image_size=size, channels=1, fit=fit, crop_rate=crop_rate)
    cells = prepare(image, preprocess)[..., 0]
    heat = explanation(cells, shape, where=placement(shape, preprocess)).heat()
    inner = heat[4:-4, 4:-4]  # at its edges padding comes in
    seen = ~np.isnan(inner)
    assert seen.mean() > 0.1 or fit == "crop"
    difference = np.abs(inner - scene[4:-4, 4:-4])[seen]
    assert difference.mean() < 3
    assert difference.max() < 14


def test_padding_is_counted():
    cells = np.array([[1.0, 0, 0, 1], [1, 2, 0, 1]])
    found = explanation(cells, where=Placement(-0.5, 0, 1.5, 1)).padding  # the first and last column
    assert found == {"area": 0.5, "evidence": pytest.approx(4 / 6, abs=1e-6)}
    assert explanation(cells).padding == {"area": 0, "evidence": 0}
    assert '"area": 0.0' in json.dumps(explanation(cells, where=Placement(1 / 3, 0.1, 0.7, 1)).to_json())
    assert explanation(0 * cells, where=Placement(-0.5, 0, 1.5, 1)).padding == {"area": 0.5, "evidence": 0}


# Pictures and files


def test_a_picture_has_exactly_the_images_size(tmp_path):
    one = explanation(np.random.default_rng(0).random((4, 4)), (241, 113))
    path = one.save(tmp_path / "why.png")
    with Image.open(path) as picture:
        assert (picture.size, picture.mode, picture.format) == ((113, 241), "RGB", "PNG")
        np.testing.assert_array_equal(np.asarray(picture), one.overlay())
    assert one.enlarged == 1


@pytest.mark.parametrize(("shape", "times"), [((8, 8), 28), ((28, 28), 8), ((5, 60), 3), ((112, 3), 2), ((113, 3), 1)])
def test_small_images_are_enlarged_by_whole_factors(shape, times):
    one = explanation(np.zeros((2, 2)), shape, "occlusion")
    assert one.enlarged == one.to_json()["enlarged"] == times
    painted = one.overlay()
    assert painted.shape == (shape[0] * times, shape[1] * times, 3)
    np.testing.assert_array_equal(painted, painted[::times, ::times].repeat(times, 0).repeat(times, 1))
    assert one.heat().shape == shape
    assert one.to_json()["picture_size"] == [shape[0] * times, shape[1] * times]


def test_large_images_are_shown_smaller(monkeypatch):
    monkeypatch.setattr(explanations, "MAX_SIDE", 300)
    upright = Image.new("RGB", (900, 450))
    one = explained("a", upright, card(), Question("relevance"), Target(1), None, np.ones((2, 2), np.float32))
    assert one.overlay().shape == (150, 300, 3)
    assert (one.shape, one.heat().shape) == ((450, 900), (450, 900))
    assert (one.target, one.placement) == ("dog", Placement(0, -0.5, 1, 1.5))


def test_arrays_are_read_without_pickle(tmp_path):
    cells = np.array([[1.0, -4.0], [0.0, 2.0]])
    one = replace(explanation(cells, (20, 40), "occlusion", Placement(0.25, 0, 0.75, 1)), image="b \udcff.jpg")
    with np.load(one.save(tmp_path / "why.npz"), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["map"], cells)
        assert arrays["map"].dtype == np.float32
        assert (arrays["heat"].dtype, arrays["heat"].shape) == (np.float16, (20, 40))
        np.testing.assert_allclose(arrays["heat"] * arrays["heat_unit"], one.heat(), atol=4e-3)
        assert arrays["placement"].tolist() == [0.25, 0, 0.75, 1]
        texts = {name: str(arrays[name]) for name in ("image", "model", "method", "target", "against")}
    assert texts == {"image": r"b \udcff.jpg", "model": "vit", "method": "occlusion", "target": "cat", "against": ""}


def test_json_says_all_but_the_arrays(tmp_path):
    one = explanation(np.array([[0.0, 3.0]]))
    found = json.loads(one.save(tmp_path / "why.json").read_text())
    assert found == json.loads(json.dumps(one.to_json()))
    assert found["prediction"] == {
        "label": "cat",
        "probability": 0.75,
        "top": [{"label": "cat", "probability": 0.75}, {"label": "dog", "probability": 0.25}],
        "decision": "cat",
        "sure": True,
    }
    assert (found["question"], found["method"], found["map_size"], found["map_range"]) == (
        "evidence for cat",
        "relevance",
        [1, 2],
        [0, 3],
    )
    assert found["placement"] == {"left": 0, "top": 0, "right": 1, "bottom": 1}


def test_other_files_are_refused(tmp_path):
    one = explanation(np.ones((2, 2)))
    with pytest.raises(ConfigError, match=r"'why.jpg' does not end in .png \(the overlay\), .npz \(the map\) or .json"):
        one.save(tmp_path / "why.jpg")
    with pytest.raises(ConfigError, match=r"missing is no folder that why.png could go to; make it first$"):
        one.save(tmp_path / "missing" / "why.png")


def test_a_notebook_shows_three_panels():
    one = replace(explanation(np.ones((2, 2)), method="attention"), target=None, layer=3, prediction=None)
    with Image.open(io.BytesIO(one._repr_png_())) as shown:
        assert shown.width > 400
    texts = [text.get_text() for text in one.figure().texts]
    assert texts == ["vit", "attention of layer 3, mean of its heads: what is looked at, whatever the class"]
    texts = [text.get_text() for text in explanation(np.ones((2, 2))).figure().texts]
    assert texts == ["predicted: cat (75.0 %)", "relevance: evidence for cat"]
    assert replace(one, layer=None, head=1).way == "attention of the last layer, head 1"
    assert replace(one, target="cat", against="dog").question == "evidence for cat rather than dog"


def test_a_map_says_what_it_has_a_value_of():
    assert explanation(np.ones((64, 64)), method="occlusion").cells == "15x15 windows"
    assert explanation(np.ones((8, 12)), method="occlusion").cells == "7x11 windows"
    assert explanation(np.ones((8, 12)), method="integrated_gradients").cells == "8x12 pixels"
    one = explanation(np.ones((4, 3)))
    assert [axes.get_title() for axes in one.figure().axes][1] == "map, 4x3 patches"


def test_all_labels_above_a_half_are_told():
    one, given = explanation(np.ones((2, 2))), {"blue": 0.823, "red": 0.25, "round": 0.61}
    several = Prediction("a.jpg", "blue", 0.823, probabilities=given)
    title = replace(one, prediction=several).figure().texts[0].get_text()
    assert title == "predicted: blue (82.3 %), round (61.0 %)"
    none = Prediction("a.jpg", "red", 0.25, probabilities={"red": 0.25})
    title = replace(one, prediction=none).figure().texts[0].get_text()
    assert title == "predicted: no label; the most probable: red (25.0 %)"


def test_the_sentence_and_the_title_name_what_the_class_is_set_against():
    one = replace(explanation(np.ones((8, 8)), method="occlusion"), against="dog")
    assert one.to_json()["reading"] == (
        "Orange places (above 0) are those without which the score of the class rather than dog falls, "
        "blue ones (below 0) those without which it rises"
    )
    assert one.figure().texts[1].get_text() == "occlusion: evidence for cat rather than dog"


def test_an_explanation_is_told_in_a_line():
    one = explanation(np.ones((4, 3)))
    assert repr(one) == "Explanation(a.jpg, relevance, evidence for cat, map 4x3)"
    assert repr(Explained("a.jpg", one)) == f"Explained(a.jpg, {one!r})"
    assert repr(Explained("b.jpg", None, "b.jpg is empty")) == "Explained(b.jpg, error: b.jpg is empty)"


# What is asked


def test_without_a_target_it_is_the_predicted_class():
    logits = np.array([1.0, 3.0])
    assert Question().target_of(logits, card()) == Target(1)
    assert Question(target="cat").target_of(logits, card()) == Target(0)
    assert Question(against="cat").target_of(logits, card()) == Target(1, 0)
    with pytest.raises(
        ConfigError, match="'dog' is what is predicted, and cannot be set against itself; name a target"
    ):
        Question(against="dog").target_of(logits, card())


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (Question(target="cta"), "vit_micro_conv4_8 has no class 'cta'; it has cat, dog. Did you mean 'cat'?"),
        (Question(against="dgo"), "vit_micro_conv4_8 has no class 'dgo'; it has cat, dog. Did you mean 'dog'?"),
        (Question(target="cat", against="cat"), "target and against are both 'cat'; name two classes to contrast"),
        (
            Question("rollout", target="cat"),
            "rollout shows what is looked at, whatever the class; leave target and against out, or use "
            "relevance, grad_cam, integrated_gradients or occlusion",
        ),
        (
            Question(target="3"),
            "vit_micro_conv4_8 has no class '3'; it has cat, dog, and classes go by their names, not by numbers.",
        ),
        (Question("attention", layer=7), "layer=7 is not there: the model has 3 layers, 0 to 2"),
        (
            Question("occlusion", head=0),
            "occlusion is of all layers and heads together; leave layer and head out, or use attention",
        ),
    ],
)
def test_what_cannot_be_asked(question, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        question.resolved(subject(card()), card())


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"method": "releavnce"},
            "No method named 'releavnce'. Did you mean 'relevance'? Use one of relevance, rollout, attention, "
            "grad_cam, integrated_gradients, occlusion",
        ),
        ({"method": 3}, "No method named 3. Use one of relevance, "),
        ({"target": 2.0}, "target=2.0 is no class; give the name of one"),
        ({"against": ["cat"]}, "against=['cat'] is no class; give the name of one"),
        ({"target": True}, "target=True is no class; give the name of one"),
        ({"layer": "last"}, "layer='last' is not a whole number; layers and heads count from 0"),
        ({"head": 0.5}, "head=0.5 is not a whole number; layers and heads count from 0"),
    ],
)
def test_what_is_no_question(asked, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
        Question(**asked)


@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3)])
def test_a_number_is_the_class_of_that_name(number):
    assert Question(target=number, against=7) == Question(target="3", against="7")
    digits = card(("7", "3", "8"))
    assert Question(target=number).target_of(np.zeros(3), digits) == Target(1)  # not the fourth


def test_a_model_without_classes_shows_what_it_looks_at():
    extractor = card(())
    assert Question().resolved(subject(extractor), extractor).method == "rollout"
    assert Question("attention", layer=0).resolved(subject(extractor), extractor) == Question("attention", layer=0)
    with pytest.raises(
        ConfigError,
        match=r"^relevance explains the score of a class, and vit_micro_conv4_8 has none; use rollout or attention$",
    ):
        Question("relevance").resolved(subject(extractor), extractor)
    answers_alone = Subject(lambda images: np.zeros((len(images), 32), np.float32), np.zeros(1, np.float32))
    with pytest.raises(ConfigError, match="has neither classes to explain nor attention to show"):
        Question().resolved(answers_alone, extractor)
