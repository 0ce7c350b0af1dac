import inspect

import numpy as np
import pytest

import vitrail as package
from vitrail import auditing
from vitrail.auditing import AuditWishes, LabelCheck, audit_data
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError, ConfigError, DataError
from vitrail.preparation import Request

SIZE = Preprocess(image_size=(8, 8), channels=1, fit="squash")


def bars(count, num_classes=3, seed=0):
    """Images (count, 8, 8, 1) with a bright bar for each class, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % num_classes
    pixels = rng.integers(0, 100, (count, 8, 8, 1), dtype=np.uint8)
    pixels[np.arange(count), 2 * classes] += 150
    return pixels, classes.astype(np.int64)


def check_of(*sets, classes=("ant", "bee", "cat"), multilabel=False):
    images = dict(zip(("all",) if len(sets) == 1 else ("train", "validation", "test"), sets, strict=False))
    dataset = Dataset("bars", classes, tuple(images), images.__getitem__, multilabel=multilabel)
    return LabelCheck(dataset, SIZE, images)


def named(pixels, labels, first="all", **more):
    return ImageSet(pixels, labels, tuple(f"{first}/{index}" for index in range(len(labels))), **more)


def wrong_labels(labels, places, num_classes=3):
    changed = labels.copy()
    changed[places] = (changed[places] + 1) % num_classes
    return changed


def test_planted_wrong_labels_are_found_and_nothing_else():
    pixels, classes = bars(240)
    done = check_of(named(pixels, wrong_labels(classes, [7, 100, 201]))).run(None, "cpu", False)
    assert {finding.images for finding in done.findings} == {("all/7",), ("all/100",), ("all/201",)}
    first = next(finding for finding in done.findings if finding.images == ("all/7",))
    assert (first.kind, first.split) == ("suspicious_label", "all")
    assert (first.details["label"], first.details["suggested"]) == ("cat", "bee")
    assert first.sentence.startswith("all/7 is labelled cat, and bee is ")
    assert first.sentence.endswith(" times as probable")
    assert done.notes[0].startswith(
        "Labels were compared with out-of-fold predictions from a small model of their pixels, which agree with 98.8% "
    )
    assert done.facts == {
        "predictions": "a small model of their pixels", "agreement": 0.9875, "folds": 5, "images": 240
    }  # fmt: skip


def test_nothing_is_found_in_a_clean_set():
    done = check_of(named(*bars(240))).run(None, "cpu", False)
    assert (done.findings, len(done.notes)) == ((), 1)
    assert done.notes[0].endswith("which agree with 100.0% of them")


def test_all_splits_are_checked_and_named():
    pixels, classes = bars(240)
    labels = wrong_labels(classes, [5, 200])
    done = check_of(named(pixels[:150], labels[:150], "train"), named(pixels[150:], labels[150:], "b")).run(
        None, "cpu", False
    )
    assert [(finding.split, finding.images) for finding in sorted(done.findings, key=lambda one: one.split)] == [
        ("train", ("train/5",)),
        ("validation", ("b/50",)),
    ]


def test_predictions_no_better_than_chance_suspect_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1), dtype=np.uint8)
    done = check_of(named(pixels, np.arange(120, dtype=np.int64) % 3)).run(None, "cpu", False)
    assert done.findings == ()
    assert done.notes[0].endswith("; that is too little to suspect any, and --model may know better")


def test_images_of_a_group_and_near_copies_are_in_one_fold(monkeypatch):
    pixels, classes = bars(60)
    monkeypatch.setattr("vitrail.data.units.near_copies", lambda name, sets: np.array([*range(59), 0]))
    given = []
    monkeypatch.setattr(auditing, "out_of_fold", lambda *args: given.append(args[2]) or np.full((60, 3), 1 / 3))
    groups = tuple(f"group {index // 3}" for index in range(60))
    train, test = (
        named(pixels[part], classes[part], name, groups=groups[part])
        for name, part in (("a", slice(45)), ("b", slice(45, 60)))
    )
    check_of(train, test).run(None, "cpu", False)
    (folds,) = given
    assert all(len({*folds[start : start + 3].tolist()}) == 1 for start in range(0, 60, 3))
    assert folds[0] == folds[59]
    assert np.bincount(folds).tolist() == [12] * 5


def test_classes_of_few_images_are_left_out_and_named():
    pixels, classes = bars(120)
    labels = classes.copy()
    labels[:4] = 3
    done = check_of(named(pixels, labels), classes=("ant", "bee", "cat", "dog")).run(None, "cpu", False)
    assert done.notes[1] == "Not checked, being of fewer than 5 different images: the labels dog"
    assert done.facts is not None
    assert done.facts["images"] == 116


def test_what_is_not_checked_is_said():
    pixels, classes = bars(30)
    several = ImageSet(pixels, np.eye(3, dtype=np.int64)[classes], tuple(map(str, range(30))))
    done = check_of(several, multilabel=True).run(None, "cpu", False)
    assert done.notes == ("Labels were not checked, as an image may have several here",)
    done = check_of(named(pixels[:6], classes[:6])).run(None, "cpu", False)
    assert done.notes == ("Labels were not checked: that takes two classes of 5 different images or more each",)
    assert (done.findings, done.facts) == ((), None)


def test_large_sets_are_checked_when_asked(monkeypatch):
    monkeypatch.setattr(auditing, "MOST_WORK", 1000)
    check = check_of(named(*bars(90)))
    done = check.run(None, "cpu", False)
    assert done.notes == (
        "Labels were not checked, as 90 images of 3 classes take more than about a minute; --labels checks them",
    )
    assert check.run(None, "cpu", False, forced=True).facts is not None


def test_progress_is_told_over_all_splits():
    pixels, classes = bars(90)
    heard = []
    check = check_of(named(pixels[:60], classes[:60], "a"), named(pixels[60:], classes[60:], "b"))
    check.run(None, "cpu", False, report=lambda done, total: heard.append((done, total)))
    assert heard == [(60, 90), (90, 90), (18, 90), (36, 90), (54, 90), (72, 90), (90, 90)]


def test_the_vectors_of_a_run_and_what_it_has_seen(digits_run):
    found = audit_data(Request(("digits",)), AuditWishes(digits_run))
    check = found.statistics["label_check"]
    assert check["predictions"] == f"the vectors of {digits_run}"
    assert check["agreement"] > 0.9
    assert found.notes[-1] == (
        f"1,438 of the images are among those that {digits_run} was trained on or chosen by; its vectors know their "
        "labels, so that wrong ones are harder to see"
    )


def test_the_same_from_python(tmp_path, write_idx, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "set", 90, 30)
    found = package.audit("set", html=tmp_path / "audit.html", preview=2)
    assert found.written == {"preview": "set-preview.png", "html": str(tmp_path / "audit.html")} or (
        found.written == {"preview": str(tmp_path / "set-preview.png"), "html": str(tmp_path / "audit.html")}
    )
    assert all((tmp_path / path).is_file() for path in found.written.values())
    assert found.to_dict()["written"] == dict(found.written)
    assert found.to_dict()["statistics"]["label_check"]["images"] == 120
    assert package.audit("set", labels=False).statistics.get("label_check") is None


def test_its_parameters_are_written_out():
    parameters = inspect.signature(package.audit).parameters
    assert [*parameters] == [
        "data", "corrections", "settings", "model", "labels", "html", "write_corrections", "preview", "device",
        "offline", "report",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ({"model": "x", "labels": False}, ConfigError, "^A model is for the check of labels, which is left out; "),
        ({"preview": 0}, ConfigError, "^preview=0 is not possible; draw 1 image or more$"),
        ({"html": "audit.txt"}, ConfigError, r"^audit\.txt does not end in \.html"),
        ({"settings": {"training.epochs": 3}}, ConfigError, r"^training\.epochs changes nothing about an audit; "),
        (
            {"settings": {"data.augment.flip_rate": 1}},
            ConfigError,
            r"^data\.augment\.flip_rate changes nothing about an",
        ),
        ({"settings": {"data.fold": "1/5"}}, ConfigError, r"^data\.fold changes nothing about an audit; what does is "),
        ({"settings": {"model.depth": 3}}, ConfigError, r"^model\.depth changes nothing about an audit; "),
        ({"settings": {"data.serving": "mapped"}}, ConfigError, r"^data\.serving=mapped is about image files, and "),
        ({"settings": {"data.fitt": "pad"}}, ConfigError, r"data\.fitt"),
        ({"model": "nowhere"}, (ConfigError, CheckpointError), "nowhere"),
        ({"data": "nowhere"}, (ConfigError, DataError), "^No data set named 'nowhere'"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(how, error, sentence):
    data = how.pop("data", "digits")
    with pytest.raises(error, match=sentence):
        package.audit(data, **how)
