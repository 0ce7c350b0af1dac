import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail import classifier as module
from vitrail.api import load
from vitrail.checkpoint import ModelCard, load_model
from vitrail.classifier import Classifier
from vitrail.data.content import content_hash
from vitrail.data.images import read_image
from vitrail.data.preprocess import Preprocess, prepare
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError, DataError
from vitrail.explanations import Question
from vitrail.models import model_config
from vitrail.predictions import Prediction


class Columns:
    """An engine whose logit of a class is the mean of one column of the image, over ten; it counts its calls."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.sizes: list[int] = []

    def logits(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(len(images))
        assert images.dtype == np.uint8
        assert images.shape[1:] == (8, 8, 1)
        logits = np.zeros((len(images), self.num_classes), np.float32)
        logits[:, :8] = images[:, :, : self.num_classes, 0].mean(axis=1) / 10
        return logits


def columns(classes: str = "abcdefg", temperature: float = 1.0, threshold: float | None = None) -> Classifier:
    card = ModelCard(
        model_name="vit_micro_conv4_8",
        model=model_config("vit_micro_conv4_8", num_classes=len(classes)),
        classes=tuple(classes),
        preprocess=Preprocess(image_size=(8, 8), channels=1, fit="pad"),
        temperature=temperature,
        reject_threshold=threshold,
    )
    return Classifier(Columns(len(classes)), card)


def bright(*values: int) -> np.ndarray:
    """An 8x8 image whose first columns have these values."""
    image = np.zeros((8, 8), np.uint8)
    image[:, : len(values)] = values
    return image


@pytest.fixture(scope="module")
def trained(digits_run: Path) -> Classifier:
    return load(digits_run)


def test_the_five_most_probable_classes_come_best_first():
    prediction = columns().predict(bright(10, 60, 30, 50, 20, 40))
    assert [label for label, _ in prediction.top] == ["b", "d", "f", "c", "e"]
    scores = np.exp([1, 6, 3, 5, 2, 4, 0])
    expected = np.sort(scores / scores.sum())[::-1][:5]
    np.testing.assert_allclose([probability for _, probability in prediction.top], expected, rtol=1e-6)
    assert (prediction.label, prediction.probability) == prediction.top[0]
    assert prediction.error is None


def test_few_classes_are_all_given_and_sum_to_one():
    prediction = columns("ab").predict(bright(20, 10))
    assert [label for label, _ in prediction.top] == ["a", "b"]
    assert sum(probability for _, probability in prediction.top) == pytest.approx(1, abs=1e-12)


def test_the_first_of_equal_classes_wins():
    alphabet = columns("abcdefghijklmnopqrstuvwxyz")
    assert "".join(label for label, _ in alphabet.predict(bright(0, 0, 90)).top) == "cabde"


def test_the_temperature_divides_the_logits():
    sure, unsure = (columns("ab", temperature).predict(bright(20, 0)) for temperature in (1.0, 4.0))
    assert sure.probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert unsure.probability == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_a_probability_above_the_threshold_is_sure():
    exact = columns("ab").predict(bright(20, 0)).probability
    assert exact is not None
    for threshold, sure in ((None, True), (0.0, True), (exact - 1e-9, True), (exact, False), (1.0, False)):
        prediction = columns("ab", threshold=threshold).predict(bright(20, 0))
        assert (prediction.sure, prediction.label) == (sure, "a"), threshold
        assert [prediction] == list(columns("ab", threshold=threshold).predict_many([bright(20, 0)]))
    (broken,) = columns("ab", threshold=1.0).predict_many([b""])
    assert (broken.decision, broken.to_dict()["sure"]) == (None, None)


def test_an_image_is_called_after_its_file_or_its_kind(tmp_path):
    path = tmp_path / "a b.png"
    Image.fromarray(bright(9)).save(path)
    with Image.open(path) as opened:
        images = [path, str(path), path.read_bytes(), opened, Image.fromarray(bright(9)), bright(9)]
        names = [prediction.image for prediction in columns().predict_many(images)]
    assert names == [str(path), str(path), "bytes", str(path), "image", "array"]


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (8, 8, 4)])
def test_arrays_may_have_channels(shape):
    image = np.full(shape, 255, np.uint8)
    image[..., :3] = bright(10, 90)[:, :, None]
    assert columns().predict(image).label == "b"


def test_many_images_are_predicted_in_chunks_and_in_order(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    classifier = columns("ab")
    labels = "abbaababba"
    images = [bright(90, 0) if label == "a" else bright(0, 90) for label in labels]
    assert "".join(str(prediction.label) for prediction in classifier.predict_many(iter(images))) == labels
    assert classifier.engine.sizes == [4, 4, 2]


def test_images_are_read_when_their_predictions_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    read: list[int] = []

    def images():
        for index in range(6):
            read.append(index)
            yield bright(index)

    predictions = columns().predict_many(images())
    next(predictions)
    assert read == [0, 1]


def test_what_cannot_be_read_keeps_its_place(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CHUNK", 3)
    missing = tmp_path / "missing.png"
    images = [bright(9), missing, bright(0, 9), b"text", b"", bright(9), missing]
    found = list(columns("ab").predict_many(images))
    assert [prediction.label for prediction in found] == ["a", None, "b", None, None, "a", None]
    assert found[1] == Prediction(str(missing), None, None, (), f"{missing} does not exist")
    assert found[3].error == "the image is not an image that can be read: it is not in an image format that is known"
    assert found[4].error == "the image is not an image that can be read: it is empty"


def test_nothing_to_predict():
    classifier = columns()
    assert list(classifier.predict_many([])) == []
    assert classifier.engine.sizes == []


def test_one_image_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(DataError, match=r"no\.png does not exist"):
        columns().predict(tmp_path / "no.png")
    with pytest.raises(DataError, match="shape \\(8, 8\\) and dtype float64"):
        columns().predict(bright(9).astype(np.float64))


def test_examined_images_have_their_content_and_what_the_head_sees(trained, digit_images):
    images = [digit_images[0], b"text", Image.fromarray(digit_images[1]).resize((30, 20)), digit_images[0]]
    found = list(trained.examine_many(images))
    assert [one.prediction for one in found] == list(trained.predict_many(images))
    assert (found[1].content, found[1].features) == (None, None)
    assert found[0].content == content_hash(digit_images[0]) == found[3].content
    assert found[2].content == content_hash(np.asarray(images[2]))  # at its own size
    model = trained.engine.model
    for place in (0, 2):
        pixels = prepare(read_image(images[place]), trained.card.preprocess)
        logits = model.head(torch.from_numpy(found[place].features)).detach().numpy()
        np.testing.assert_allclose(logits, trained.engine.logits(pixels[None])[0], rtol=1e-4, atol=1e-5)


def test_an_engine_without_features_gives_probabilities_for_them():
    (found,) = columns("ab").examine_many([bright(20, 0)])
    np.testing.assert_array_equal(found.features, columns("ab").probabilities(bright(20, 0)[None, ..., None])[0])


def test_counted_logits_are_the_engines(trained, digit_images, monkeypatch):
    images = digit_images[:50, ..., None]
    expected = trained.engine.logits(images)
    np.testing.assert_array_equal(trained.logits(images), expected)
    monkeypatch.setattr(module, "COUNTED", 20)
    heard: list[tuple[int, int]] = []
    counted = trained.logits(images, lambda done, total: heard.append((done, total)))
    np.testing.assert_allclose(counted, expected, atol=1e-5)
    assert heard == [(20, 50), (40, 50), (50, 50)]


def test_classes_and_name():
    assert columns("ab").classes == ("a", "b")
    assert repr(columns("ab")) == "Classifier(vit_micro_conv4_8, 2 classes)"


def test_probabilities_are_those_of_the_predictions(trained, digit_images):
    probabilities = trained.probabilities(digit_images[:30, ..., None])
    assert probabilities.shape == (30, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    for image, row in zip(digit_images[:30], probabilities, strict=True):
        prediction = trained.predict(image)
        assert prediction.label == trained.classes[row.argmax()]
        assert prediction.probability == pytest.approx(row.max(), abs=1e-6)


def test_a_prediction_does_not_depend_on_the_other_images(trained, digit_images):
    together = list(trained.predict_many(list(digit_images[:40])))
    for image, prediction in zip(digit_images[:40:8], together[::8], strict=True):
        alone = trained.predict(image)
        assert [label for label, _ in alone.top] == [label for label, _ in prediction.top]
        np.testing.assert_allclose([p for _, p in alone.top], [p for _, p in prediction.top], atol=1e-6)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_the_same_image_in_another_form_is_predicted_the_same(trained, digit_images):
    grey = Image.fromarray(digit_images[3])
    wide = Image.fromarray(digit_images[3].astype(np.uint16) * 257)
    seen_through = Image.merge("LA", (grey, Image.new("L", grey.size, 255)))
    forms = {
        "PNG": encoded(grey, "PNG"),
        "BMP": encoded(grey, "BMP"),
        "RGB": encoded(grey.convert("RGB"), "PNG"),
        "palette": encoded(grey.convert("P"), "PNG"),
        "16 bits": encoded(wide, "PNG"),
        "opaque RGBA": encoded(grey.convert("RGBA"), "PNG"),
        "opaque LA": encoded(seen_through, "PNG"),
        "CMYK": encoded(grey.convert("CMYK"), "TIFF"),
    }
    expected = trained.predict(digit_images[3])
    assert expected.label == "3"
    for name, data in forms.items():
        assert trained.predict(data).top == expected.top, name


def test_transparent_is_white(trained, digit_images):
    paper = Image.fromarray(255 - digit_images[0])  # dark ink on white
    ink = Image.new("LA", paper.size)
    ink.putdata([(0, 255 - value) for value in (255 - digit_images[0]).ravel().tolist()])
    assert trained.predict(encoded(ink, "PNG")).top == trained.predict(paper).top


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_predicted_as_the_upright_one(trained, digit_images, orientation):
    upright = Image.fromarray(digit_images[2]).resize((24, 16), Image.Resampling.NEAREST)
    turns = [
        None,
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_270,
    ]
    turn = turns[orientation - 1]  # what a camera held that way stores
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert trained.predict(encoded(stored, "PNG", exif=exif)).top == trained.predict(upright).top


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (8, 9), (400, 300)])
def test_images_of_any_size_are_predicted(trained, digit_images, size):
    image = Image.fromarray(digit_images[5]).resize(size)
    assert trained.predict(image).probability > 0.1


def test_an_enlarged_digit_is_still_the_digit(trained, digit_images):
    right = 0
    for index in range(20):
        large = Image.fromarray(digit_images[index]).resize((64, 64), Image.Resampling.NEAREST)
        right += trained.predict(large).label == trained.predict(digit_images[index]).label
    assert right >= 18


# Vectors, and images at their own sizes


def test_a_vector_needs_no_classes(trained):
    card = trained.card.model_copy(update={"classes": ()})  # as a feature extractor's
    extractor = Classifier(trained.engine, card)
    images = [bright(10, 20), b"", bright(30)]
    rows = list(extractor.embed_many(images))
    assert [(row.image, row.vector is None) for row in rows] == [("array", False), ("bytes", True), ("array", False)]
    np.testing.assert_allclose(rows[2].vector, trained.embed(bright(30)), rtol=1e-5, atol=1e-6)
    assert rows[0].content == content_hash(bright(10, 20))
    assert rows[1].error == "the image is not an image that can be read: it is empty"


def test_images_at_their_own_sizes_have_the_logits_they_have_alone(digits_run, trained):
    numbers = np.random.default_rng(0)
    images = [numbers.integers(0, 256, size, dtype=np.uint8) for size in ((8, 8), (20, 12), (5, 9, 3), (8, 8))]
    found = trained.native_logits(images)
    assert (found.shape, found.dtype) == ((4, 10), np.float32)
    for image, logits in zip(images, found, strict=True):
        alone = load(digits_run, image_size=image.shape[:2])
        prepared = prepare(read_image(image), alone.card.preprocess)
        np.testing.assert_allclose(logits, alone.engine.logits(prepared[None])[0], rtol=1e-4, atol=1e-4)


def test_an_engine_of_one_size_is_refused_others():
    with pytest.raises(ConfigError, match=r"^This model takes images of one size; resize them, or load it with"):
        columns().native_logits([bright(1)])


def test_several_labels_have_a_sigmoid_each():
    single = columns("abc", temperature=2.0)
    several = Classifier(single.engine, single.card.model_copy(update={"multilabel": True}))
    image = bright(200, 40, 0)
    logits = np.array([20.0, 4.0, 0.0]) / 2
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(several.probabilities(image[None, :, :, None])[0], expected, rtol=1e-6)
    prediction = several.predict(image)
    assert (prediction.labels, prediction.label) == (("a", "b"), "a")  # a half is not above a half
    assert list(prediction.probabilities) == ["a", "b", "c"]
    assert single.predict(image).labels is None


def test_evidence_lies_where_the_model_looks():
    """The planted engine reads class b from the second column, and a from the first."""
    image = bright(200, 250)
    found = columns("abc").explain(image)
    assert (found.method, found.target, found.against, found.signed) == ("occlusion", "b", None, True)
    assert found.prediction == columns("abc").predict(image)
    heat = found.heat()
    assert heat.shape == (8, 8)
    assert heat[:, 1].min() > heat[:, 3:].max()
    contrasted = columns("abc").explain(image, target="a", against="b")
    assert (contrasted.target, contrasted.against) == ("a", "b")
    assert contrasted.heat()[:, 1].max() < 0  # without b's column a has more than b


def test_one_image_or_several():
    with pytest.raises(ConfigError, match=r"^explain takes one image; give several to explain_many$"):
        columns("abc").explain(["a.jpg"])
    for image in ("a.jpg", Path("a.jpg"), b""):
        with pytest.raises(
            ConfigError, match=r"^explain_many takes several images; give one to explain, or \[image\]$"
        ):
            list(columns("abc").explain_many(image, Question()))


def test_a_number_names_a_class_that_is_one():
    found = columns("135").explain(bright(200, 250), target=3, against=np.int64(1))
    assert (found.target, found.against) == ("3", "1")
    with pytest.raises(ConfigError, match=r"has no class '0'; it has 1, 3, 5, and classes go by their names"):
        columns("135").explain(bright(200, 250), target=0)


def test_what_cannot_be_asked_is_said_before_an_image_is_read(trained):
    for asked in (Question(target="ten"), Question("attention", layer=4), Question("attention", head=9)):
        with pytest.raises(ConfigError, match=r"ten|is not there"):
            next(trained.explain_many((pytest.fail("an image is read") for _ in range(1)), asked))


def test_what_remains_without_gradients_is_said():
    for method in ("relevance", "rollout", "attention", "grad_cam", "integrated_gradients"):
        with pytest.raises(ConfigError, match=r"runs without PyTorch gives answers alone, .*; use occlusion$"):
            columns("abc").explain(bright(30, 90), method)


@pytest.mark.parametrize("method", [None, "attention", "grad_cam", "integrated_gradients"])
def test_many_explanations_equal_one_by_one(trained, digit_images, method, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "EXPLAINED", 2)
    images = [digit_images[0], b"no image", digit_images[1], tmp_path / "missing.png", digit_images[2]]
    rows = list(trained.explain_many(images, Question(method)))
    assert [row.image for row in rows] == ["array", "bytes", "array", str(tmp_path / "missing.png"), "array"]
    assert [row.explanation is None for row in rows] == [False, True, False, True, False]
    assert rows[3].error == f"{tmp_path / 'missing.png'} does not exist"
    for image, row in zip(images[::2], rows[::2], strict=True):
        alone, one = trained.explain(image, method), row.explanation
        assert one is not None
        assert one.to_json()["prediction"]["top"][0] == pytest.approx(alone.to_json()["prediction"]["top"][0])
        np.testing.assert_allclose(one.map, alone.map, atol=1e-5)
        np.testing.assert_array_equal(one.original[..., 0], image)


def test_nothing_is_contrasted_with_itself(trained, digit_images):
    rows = list(trained.explain_many(list(digit_images[:10]), Question(against="3")))
    failed = [row for row in rows if row.error is not None]
    assert 1 <= len(failed) < 5
    assert failed[0].error == "array: '3' is what is predicted, and cannot be set against itself; name a target"
    assert {row.explanation.against for row in rows if row.explanation is not None} == {"3"}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"method": "attention", "layer": 4}, "layer=4 is not there"),
        ({"method": "attention", "head": 9}, "head=9 is not there"),
        ({"layer": 0}, "leave layer and head out, or use attention"),
        ({"target": "ten"}, "has no class 'ten'"),
    ],
)
def test_what_is_not_there_cannot_be_explained(trained, digit_images, asked, sentence):
    with pytest.raises(ConfigError, match=sentence):
        trained.explain(digit_images[0], **asked)
    with pytest.raises(ConfigError, match=sentence):
        list(trained.explain_many([digit_images[0]], Question(**asked)))


def test_a_feature_extractor_shows_what_it_looks_at(digits_run, digit_images):
    model, card = load_model(digits_run)
    model.head = torch.nn.Identity()
    config = card.model.model_copy(update={"num_classes": 1})
    bare = Classifier(TorchEngine(model, torch.device("cpu")), card.model_copy(update={"classes": (), "model": config}))
    found = bare.explain(digit_images[0])
    assert (found.method, found.target, found.prediction) == ("rollout", None, None)
    np.testing.assert_allclose(found.map, load(digits_run).explain(digit_images[0], "rollout").map, atol=1e-6)


def test_one_that_cannot_be_read_is_not_explained(trained):
    with pytest.raises(DataError, match="the image is not an image that can be read"):
        trained.explain(b"no image")
