from dataclasses import replace

import numpy as np
import pytest
from attending_models import small_model

from vitrail import figures
from vitrail.api import load
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError, DataError
from vitrail.inspecting import drawing, inspection_images
from vitrail.inspecting.drawing import FIGURES, subject_of
from vitrail.inspecting.images import InspectionImages
from vitrail.interpretation import gathering, remarks
from vitrail.loading import find_source
from vitrail.models import create_model


@pytest.fixture(scope="module")
def classifier(digits_run):
    return load(digits_run)


@pytest.fixture(scope="module")
def images(digits_run, classifier) -> InspectionImages:
    return inspection_images(find_source(digits_run), (), classifier)


def drawn_arrays(monkeypatch, name: str, subject) -> tuple:
    """The arrays that a figure is drawn of."""
    seen = []
    draw = getattr(figures, f"draw_{name}")

    def watch(*arrays):
        seen.append(arrays)
        return draw(*arrays)

    monkeypatch.setattr(figures, f"draw_{name}", watch, raising=False)
    FIGURES[name](subject)
    return seen[0]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_and_says_how_it_is_read(classifier, images, name):
    found = FIGURES[name](subject_of(classifier, images, None))
    assert found.title
    assert found.reading
    assert not found.reading.endswith(".")
    assert ". " not in found.reading  # one sentence
    assert found.numbers


def test_the_map_shows_the_test_images_and_their_mistakes(classifier, images, monkeypatch):
    points, labels, predicted, classes, explained, num_images = drawn_arrays(
        monkeypatch, "embeddings", subject_of(classifier, images, None)
    )
    test = images.parts["test"]
    assert points.shape == (359, 2)
    assert explained.shape == (2,)
    assert num_images == 359
    assert classes == classifier.classes
    np.testing.assert_array_equal(labels, test.labels)
    np.testing.assert_array_equal(predicted, classifier.logits(test.pixels).argmax(axis=1))


def test_layers_are_probed_beside_the_models_head(classifier, images, monkeypatch):
    subject = subject_of(classifier, images, None)
    accuracies, intervals, names, head, sample = drawn_arrays(monkeypatch, "layer_probes", subject)
    assert sample == (179, 179)
    assert list(names) == ["0"]
    assert accuracies[0] > 0.8
    assert intervals[0, 0] < accuracies[0] < intervals[0, 1]
    part = images.parts["validation"]
    expected = float((classifier.logits(part.pixels).argmax(axis=1) == part.labels).mean())
    assert head[0] == pytest.approx(expected)
    assert head[1] < head[0] < head[2]


def test_images_of_other_classes(classifier, images):
    renamed = InspectionImages(images.parts, tuple("abcdefghij"))
    subject = subject_of(classifier, renamed, None)
    assert subject.predicted(np.eye(10, dtype=np.float32)) is None
    assert "so no mistakes are marked" in FIGURES["embeddings"](subject).reading
    assert FIGURES["layer_probes"](subject).numbers["head"] is None
    some = subject_of(classifier, InspectionImages(images.parts, ("7", "x")), None)
    assert some.predicted(np.eye(10, dtype=np.float32)[[7, 3]]) is None


def test_numbers_of_a_sample_say_so(classifier, images, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_IMAGES", 150)
    monkeypatch.setattr(remarks, "on_embeddings", lambda *_: ("Mistakes",))
    monkeypatch.setattr(remarks, "on_probes", lambda *_: ("A layer",))
    subject = subject_of(classifier, images, None)
    found = FIGURES["embeddings"](subject)
    assert found.reading.startswith("Each point is one of 150 of 359 test images, on")
    assert found.remarks == ("Mistakes (on 150 of 359 test images)",)
    assert found.figure.axes[0].get_title("left").endswith(" right of 150 of 359 images")
    found = FIGURES["layer_probes"](subject)
    assert found.reading.startswith("Each point is how many of 150 of 179 validation images a linear")
    assert found.remarks == ("A layer (on 150 of 179 validation images)",)
    assert found.figure.axes[0].get_title("left").endswith(": 150 of 179 images")


def test_sentences_fit_the_model(classifier, images):
    subject = subject_of(classifier, images, None)
    assert "2x2 patches near and far are hardly different" in FIGURES["attention_distance"](subject).reading
    assert "of the same tokens" in FIGURES["layer_similarity"](subject).reading
    cnn = create_model("resnet18_32", in_chans=1, num_classes=10).eval()
    engine = TorchEngine(cnn, subject.look.device)
    other = type(classifier)(
        engine, classifier.card.model_copy(update={"model": cnn.config, "model_name": "resnet18_32"})
    )
    cnn_subject = subject_of(other, images, None)
    with pytest.raises(ConfigError, match=r"^resnet18_32 has no attention"):
        FIGURES["attention_entropy"](cnn_subject)
    assert "speckle" not in FIGURES["filters"](cnn_subject).reading
    found = FIGURES["layer_similarity"](cnn_subject)
    assert "of the same places" in found.reading
    assert found.numbers["layers"][0] == "stem"


def test_several_labels_are_no_classes_to_tell_apart(classifier, images):
    several = {
        name: type(part)(part.pixels, np.eye(10, dtype=np.int64)[part.labels], part.names)
        for name, part in images.parts.items()
    }
    subject = subject_of(classifier, InspectionImages(several, classifier.classes), None)
    for name in ("embeddings", "layer_probes"):
        with pytest.raises(DataError, match=r"^Images may have several labels here"):
            FIGURES[name](subject)
    assert FIGURES["token_norms"](subject).numbers["images"] == 64


@pytest.mark.parametrize(
    ("family", "expected"),
    [("class token", 0), ("registers", 2), ("timm class token", None), ("timm registers", 1), ("compact", None)],
)
def test_registers_are_counted_and_advised_where_they_are_a_setting(classifier, images, monkeypatch, family, expected):
    told = []
    monkeypatch.setattr(remarks, "on_norms", lambda *found: told.append(found[-1]) or ())
    subject = subject_of(classifier, images, None)
    look = replace(subject.look, model=small_model(family))
    look.tokens = subject.look.tokens
    FIGURES["token_norms"](replace(subject, look=look))
    assert told == [expected]


def test_two_images_have_one_direction(classifier, images):
    two = {"test": images.parts["test"].take(np.arange(2))}
    found = FIGURES["embeddings"](subject_of(classifier, InspectionImages(two, classifier.classes), None))
    assert found.numbers["explained"].tolist() == [pytest.approx(1), 0]


def test_other_engines_show_nothing_of_their_inside(classifier, images):
    class Answers:
        def logits(self, images):
            return images

    with pytest.raises(ConfigError, match="inspect the run that it was made of"):
        subject_of(type(classifier)(Answers(), classifier.card), images, None)
    assert drawing.FIGURES is FIGURES
