import json
import pickle
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import vitrail
from vitrail import sklearn as ours
from vitrail.errors import CheckpointError, ConfigError, DataError, TrainingError
from vitrail.evaluation import softmax
from vitrail.sklearn import ViTClassifier, image_shape

TINY = {
    "model.embed_dim": 16,
    "model.depth": 1,
    "training.batch_size": 4,
    "training.learning_rate": 0.03,
    "training.warmup_rate": 0.0,
    "training.ema_decay": 0.0,
}
UNMOVED = {f"data.augment.{name}": 0 for name in ("shift_pixels", "rotate_degrees", "scale_rate")}

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def bars():
    """48 images (48, 8, 8) uint8 with a bright bar whose row is the class, and their labels as text."""
    numbers = np.random.default_rng(0)
    labels = np.arange(48) % 3
    images = numbers.integers(0, 100, (48, 8, 8), dtype=np.uint8)
    images[np.arange(48), 2 * labels] += 150
    return images, np.array(["low", "middle", "top"])[labels]


@pytest.fixture(scope="module")
def fitted(bars):
    """Fitted on rows of numbers far from 0..255; shared, so not to be changed."""
    images, labels = bars
    return ViTClassifier(epochs=6, settings=TINY | UNMOVED).fit(images.reshape(48, 64) / 10 - 7, labels)


def rows(bars):
    return bars[0].reshape(48, 64) / 10 - 7


# scikit-learn's own checks


@parametrize_with_checks([ViTClassifier(epochs=2, settings=TINY)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_it_works_in_a_pipeline_and_a_search(bars):
    images, labels = bars
    pipeline = make_pipeline(StandardScaler(), ViTClassifier(settings=TINY | UNMOVED))
    search = GridSearchCV(pipeline, {"vitclassifier__epochs": np.array([1, 6])}, cv=2, error_score="raise")
    search.fit(images.reshape(48, 64), labels)
    assert search.best_params_ == {"vitclassifier__epochs": 6}
    assert search.score(images.reshape(48, 64), labels) > 0.9


@pytest.mark.slow
def test_digits_are_learned():
    pixels, labels = load_digits(return_X_y=True)
    scores = cross_val_score(ViTClassifier(epochs=15), pixels, labels, cv=3, error_score="raise")
    assert scores.min() > 0.9


# What X may be


@pytest.mark.parametrize(
    ("num_features", "shape"),
    [
        (784, (28, 28, 1)),
        (64, (8, 8, 1)),
        (16, (4, 4, 1)),
        (3072, (32, 32, 3)),
        (48, (4, 4, 3)),
        (9, (1, 9, 1)),
        (27, (1, 27, 1)),
        (1, (1, 1, 1)),
        (65, (1, 65, 1)),
    ],
)
def test_numbers_become_an_image(num_features, shape):
    assert image_shape(num_features) == shape


@pytest.mark.parametrize(("num_features", "width"), [(5, 1), (63, 1), (130, 5), (128, 2), (67, 67)])
def test_features_become_patches_of_one_width(num_features, width):
    numbers = np.random.default_rng(1)
    classifier = ViTClassifier(epochs=1, settings=TINY).fit(numbers.normal(size=(8, num_features)), [0, 1] * 4)
    model = classifier.classifier_.card.model
    assert (model.image_size, model.patch_size) == ((1, num_features), (1, width))


def test_features_are_not_augmented(tmp_path, bars):
    ViTClassifier(epochs=1, settings=TINY, out=tmp_path / "row").fit(rows(bars)[:, :9], bars[1])
    assert not vitrail.Run(tmp_path / "row").config.data.augment.moves
    ViTClassifier(epochs=1, settings=TINY, out=tmp_path / "square").fit(rows(bars), bars[1])
    assert vitrail.Run(tmp_path / "square").config.data.augment.moves


@pytest.mark.parametrize("recipe", [None, "mnist"])
def test_images_of_any_layout_are_the_same_images(bars, recipe):
    images, labels = bars
    layouts = [images, images[..., None], images.reshape(48, 64), images.astype(np.float32)]
    given = [ViTClassifier(recipe=recipe, epochs=1, settings=TINY).fit(X[:12], labels[:12]) for X in layouts[:3]]
    first = given[0].predict_proba(images)
    for classifier in given:
        assert classifier.image_shape_ == (8, 8, 1)
        assert classifier.n_features_in_ == 64
        for layout in layouts:  # uint8 has the range 0..255 whatever it holds, and later floats are of that range
            assert np.array_equal(classifier.predict_proba(layout), first)


def test_colour_images():
    images = np.random.default_rng(2).integers(0, 256, (8, 6, 5, 3), dtype=np.uint8)
    classifier = ViTClassifier(epochs=1, settings=TINY).fit(images, [0, 1] * 4)
    assert classifier.image_shape_ == (6, 5, 3)
    assert classifier.classifier_.card.model.in_chans == 3
    assert classifier.predict(images).shape == (8,)


def test_floats_are_scaled_by_the_training_datas_range_and_clipped(fitted, bars):
    X = rows(bars)
    assert (fitted.data_min_, fitted.data_max_) == (X.min(), X.max())
    scaled = np.rint((X - X.min()) / (X.max() - X.min()) * 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    expected = softmax(fitted.classifier_.logits(scaled))
    np.testing.assert_allclose(fitted.predict_proba(X), expected, rtol=0, atol=1e-6)
    beyond = X.copy()
    beyond[fitted.data_max_ <= X], beyond[fitted.data_min_ >= X] = 1e9, -1e9
    assert np.array_equal(fitted.predict_proba(beyond), fitted.predict_proba(X))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 6, 6, 2), "has 2 channels; give"),
        ((4, 8, 8, 3), r"has images of \(8, 8, 3\), the model was trained on \(8, 8, 1\)"),
        ((4, 16, 4), r"has images of \(16, 4, 1\)"),
        ((4, 63), "expecting 64 features"),
    ],
)
def test_other_images_are_refused(fitted, shape, message):
    with pytest.raises(ValueError, match=message):
        fitted.predict(np.zeros(shape))


# Labels and answers


@pytest.mark.parametrize(
    "names", [["b", "a", "ä/ö"], [3, -1, 7], [1.0, 2.0, 0.0], [np.uint8(9), np.uint8(1), np.uint8(0)]]
)
def test_labels_of_any_type_come_back(bars, names, tmp_path):
    images, labels = bars
    y = np.array(names)[np.unique(labels, return_inverse=True)[1]]
    classifier = ViTClassifier(epochs=6, settings=TINY | UNMOVED).fit(images, y)
    assert classifier.classes_.tolist() == sorted(names)
    assert classifier.predict(images).dtype == y.dtype
    assert classifier.score(images, y) > 0.9
    classifier.save(tmp_path)
    loaded = ViTClassifier.load(tmp_path)
    assert loaded.classes_.dtype == classifier.classes_.dtype
    assert np.array_equal(loaded.predict(images), classifier.predict(images))


def test_probabilities_are_in_the_order_of_the_classes_and_sum_to_one(fitted, bars):
    probabilities = fitted.predict_proba(rows(bars))
    assert probabilities.shape == (48, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-6)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == bars[1]).mean() > 0.9
    assert fitted.classifier_.classes == ("low", "middle", "top")


def test_probabilities_have_the_cards_temperature(fitted, bars):
    warmed = pickle.loads(pickle.dumps(fitted))
    warmed.classifier_.card = warmed.classifier_.card.model_copy(update={"temperature": 2.0})
    expected = np.sqrt(fitted.predict_proba(rows(bars)).astype(np.float64))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(warmed.predict_proba(rows(bars)), expected, rtol=0, atol=1e-5)


def test_one_class_is_refused():
    with pytest.raises(DataError, match="y has one class, a; a classifier needs two or more") as caught:
        ViTClassifier().fit(np.zeros((3, 4)), ["a", "a", "a"])
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("y", "num_validation"),
    [
        ([0, 1], 2),  # nothing can be spared, so all of it validates
        ([0, 0, 0, 1], 1),
        ([0, 0, 1, 1], 2),
        ([0] * 20 + [1] * 10, 3),
    ],
)
def test_small_classes_are_trained_on(tmp_path, y, num_validation):
    X = np.random.default_rng(3).normal(size=(len(y), 3))
    ViTClassifier(epochs=1, settings=TINY, out=tmp_path / "run").fit(X, y)
    result = vitrail.Run(tmp_path / "run").result
    assert result["validation"]["images"] == num_validation
    assert "test" not in result


def test_equal_images_do_not_stop_it():
    """Also where a class has no image that another class does not have."""
    X = np.array([[0.0, 1.0]] * 5 + [[1.0, 0.0]] * 4)
    classifier = ViTClassifier(epochs=1, settings=TINY).fit(X, [0, 0, 0, 1, 1, 1, 1, 2, 2])
    assert classifier.classes_.tolist() == [0, 1, 2]


def test_the_validation_rate_is_a_setting(tmp_path, bars):
    settings = TINY | {"data.validation_rate": np.float64(0.5)}
    ViTClassifier(epochs=1, settings=settings, out=tmp_path / "run").fit(*bars)
    assert vitrail.Run(tmp_path / "run").result["validation"]["images"] == 24
    with pytest.raises(ConfigError, match=r"data\.validation_rate=1\.5 is not possible"):
        ViTClassifier(epochs=1, settings={"data.validation_rate": 1.5}).fit(*bars)


# Parameters


def test_equal_seeds_give_equal_bits(bars):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    fits = [ViTClassifier(epochs=1, settings=TINY, random_state=seed).fit(*bars) for seed in (3, np.int64(3), 4)]
    first, again, other = (classifier.predict_proba(bars[0]) for classifier in fits)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.rand(1), expected)  # nor are the caller's draws touched


def test_a_random_state_goes_on(bars):
    one, two = np.random.RandomState(5), np.random.RandomState(5)
    fits = [ViTClassifier(epochs=1, settings=TINY, random_state=state).fit(*bars) for state in (one, two, two)]
    first, again, other = (classifier.predict_proba(bars[0]) for classifier in fits)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": 0}, "training.epochs=0 is not possible; use a number greater than 0"),
        ({"recipe": "digit"}, "No recipe named 'digit'. Did you mean 'digits'"),
        ({"model": "vit_tniy"}, "No model named 'vit_tniy'"),
        ({"device": "gpu"}, "device='gpu' is not known"),
        ({"time": "10"}, "has no unit"),
        ({"epochs": 1, "time": "1m"}, "epochs=1 and time='1m' exclude each other"),
        (
            {"epochs": 1, "settings": {"training.epochs": 2}},
            "training.epochs is given twice, by epochs and in settings",
        ),
        ({"settings": {"seed": 2}}, "seed is given twice, by random_state and in settings"),
        ({"settings": {"training.batchsize": 2}}, "Did you mean 'training.batch_size'"),
    ],
)
def test_unfit_parameters_are_refused_by_fit(bars, parameters, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        clone(ViTClassifier(**parameters)).fit(*bars)


def test_a_time_can_be_given(bars):
    classifier = ViTClassifier(time=0.1, settings=TINY).fit(*bars)
    assert classifier.result_["stopped"] == "time"


def test_a_model_can_be_named(bars):
    classifier = ViTClassifier(model="s2_shallow_vit", epochs=1).fit(*bars)
    assert classifier.result_["model"] == "s2_shallow_vit"
    assert classifier.classifier_.card.model.image_size == (28, 28)
    assert classifier.predict(bars[0]).shape == (48,)


# Runs


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary folders are made in, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_nothing_stays_and_nothing_is_said(bars, temporary, capfd, monkeypatch):
    monkeypatch.chdir(temporary)
    classifier = ViTClassifier(epochs=1, settings=TINY).fit(*bars)
    assert [*temporary.iterdir()] == []
    assert capfd.readouterr() == ("", "")
    assert "run" not in classifier.result_
    assert classifier.result_["best_epoch"] == 1


def test_nothing_stays_of_a_fit_that_failed(fitted, bars, temporary):
    classifier = pickle.loads(pickle.dumps(fitted)).set_params(settings={"training.learning_rate": 1e30})
    with pytest.raises(TrainingError, match="not a finite number"):
        classifier.fit(*bars)
    assert [*temporary.iterdir()] == []
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        classifier.predict(bars[0])


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_more_than_one_fit(bars, temporary, monkeypatch, number, error):
    monkeypatch.setattr(ours, "say_nothing", lambda progress: signal.raise_signal(number))
    search = GridSearchCV(ViTClassifier(settings=TINY), {"epochs": [1, 2]}, cv=2)  # which goes on after an Exception
    with pytest.raises(error):
        search.fit(*bars)
    assert [*temporary.iterdir()] == []


def test_a_run_can_be_kept(tmp_path, bars):
    classifier = ViTClassifier(epochs=1, settings=TINY, out=tmp_path / "run").fit(*bars)
    run = vitrail.Run(tmp_path / "run")
    assert classifier.result_ == run.result
    assert {*run.figures()} == {"curves", "samples"}
    expected = [run.classifier().predict(image).label for image in bars[0][:4]]
    assert classifier.predict(bars[0][:4]).tolist() == expected
    assert "validation accuracy" in run._repr_html_()
    with pytest.raises(ConfigError, match="already holds a run"):
        classifier.fit(*bars)


# Files


def test_a_saved_estimator_is_the_same(tmp_path, fitted, bars):
    fitted.save(tmp_path / "new" / "folder")
    loaded = ViTClassifier.load(tmp_path / "new" / "folder")
    assert loaded.get_params() == fitted.get_params()
    assert np.array_equal(loaded.predict_proba(rows(bars)), fitted.predict_proba(rows(bars)))
    for name in ("image_shape_", "data_min_", "data_max_", "n_features_in_", "result_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "estimator.json",
        "model.json",
        "model.safetensors",
    ]
    assert ViTClassifier.load(tmp_path / "new" / "folder", device="cpu").device == "cpu"


def test_names_of_features_are_saved(tmp_path, bars):
    frame = pytest.importorskip("pandas").DataFrame(rows(bars)[:, :3], columns=["a", "b", "c"])
    ViTClassifier(epochs=1, settings=TINY).fit(frame, bars[1]).save(tmp_path)
    loaded = ViTClassifier.load(tmp_path)
    assert loaded.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame.rename(columns={"a": "z"}))


def test_what_json_cannot_hold_is_not_saved(tmp_path, fitted):
    other = pickle.loads(pickle.dumps(fitted)).set_params(random_state=np.random.RandomState(0))
    with pytest.raises(ConfigError, match=r"cannot be written as JSON .* pickle it instead"):
        other.save(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_damaged_files_are_refused(tmp_path, fitted):
    with pytest.raises(CheckpointError, match=r"estimator\.json holds no estimator that can be read"):
        ViTClassifier.load(tmp_path)
    fitted.save(tmp_path)
    path = tmp_path / "estimator.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="has another format than this Vitrail reads"):
        ViTClassifier.load(tmp_path)
    path.write_text(json.dumps(content)[:-20], encoding="utf-8")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        ViTClassifier.load(tmp_path)


def test_a_pickle_holds_safetensors_and_no_torch_objects(fitted, bars):
    content = pickle.dumps(fitted)
    assert b"torch" not in content
    assert isinstance(fitted.__getstate__()["classifier_"][0], bytes)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    loaded = pickle.loads(content)
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(loaded.predict_proba(rows(bars)), fitted.predict_proba(rows(bars)))


def test_an_estimator_that_is_not_fitted_saves_nothing(tmp_path):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        ViTClassifier().save(tmp_path / "folder")
    assert not Path(tmp_path / "folder").exists()


def test_the_module_comes_with_the_package():
    assert vitrail.sklearn.ViTClassifier is ViTClassifier
