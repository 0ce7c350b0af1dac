import hashlib
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from vitrail.data.content import content_hashes
from vitrail.data.dataset import Dataset, ImageSet, number_names
from vitrail.data.sources import open_dataset
from vitrail.data.splits import Splits, fingerprint, make_splits, read_splits
from vitrail.errors import CheckpointError, ConfigError, DataError

RATES = {"validation": 0.1, "test": 0.2}


def image_set(split: str = "train", count: int = 40, num_classes: int = 2, seed: int = 0) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 1), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count, dtype=np.int64) % num_classes, number_names(split, count))


def dataset(*published: str) -> Dataset:
    seeds = {"all": 0, "train": 0, "validation": 1, "test": 2}
    return Dataset("small", ("ant", "bee"), published, lambda split: image_set(split, seed=seeds[split]))


def test_hashes_are_of_content_and_shape():
    pixels = np.zeros((2, 2, 6, 1), np.uint8)
    expected = hashlib.sha256(b"(2, 6, 1)" + bytes(12)).hexdigest()
    assert content_hashes(pixels) == (expected, expected)
    assert content_hashes(pixels.reshape(2, 3, 4, 1))[0] != expected
    pixels[1, 0, 0] = 1
    assert content_hashes(pixels)[1] != expected
    assert content_hashes(np.asfortranarray(pixels)) == content_hashes(pixels)


@pytest.mark.parametrize(
    ("published", "sources", "sizes"),
    [
        (("all",), ("all", "all", "all"), (28, 4, 8)),
        (("train",), ("train", "train", "train"), (28, 4, 8)),
        (("train", "test"), ("train", "train", "test"), (36, 4, 40)),
        (("train", "validation"), ("train", "validation", "train"), (32, 40, 8)),
        (("train", "validation", "test"), ("train", "validation", "test"), (40, 40, 40)),
    ],
)
def test_published_splits_stay_and_missing_ones_are_drawn_from_training(published, sources, sizes):
    source = dataset(*published)
    splits = make_splits(source, 0.1, 0.2, seed=0)
    names = ("train", "validation", "test")
    assert tuple(splits.parts[name].source for name in names) == sources
    images = [splits.images(source, name) for name in names]
    assert tuple(map(len, images)) == sizes
    assert splits.rates == {name: rate for name, rate in RATES.items() if name not in published}
    for name, got in zip(names, images, strict=True):
        if name in published and sources.count(name) == 1:
            np.testing.assert_array_equal(got.pixels, source.read(name).pixels)
    used = [name for got in images for name in got.names]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize(
    ("published", "sizes"), [(("all",), (36, 4)), (("train", "validation"), (40, 40)), (("train", "test"), (36, 4, 40))]
)
def test_a_test_split_need_not_be_drawn(published, sizes):
    source = replace(dataset(*published), draws_test=False)
    splits = make_splits(source, 0.1, 0.2, seed=0)
    assert tuple(len(splits.images(source, name)) for name in splits.parts) == sizes


def test_a_set_without_training_images_is_refused():
    with pytest.raises(DataError, match=r"^small has no images to train on, only test$"):
        make_splits(dataset("test"), 0.1, 0.2, 0)


def test_an_unknown_split_is_refused():
    source = dataset("all")
    with pytest.raises(
        ConfigError, match=r"^No split named 'vaildation'\. Did you mean 'validation'\? The splits are train"
    ):
        make_splits(source, 0.1, 0.2, 0).images(source, "vaildation")


def test_other_data_are_noticed():
    splits = make_splits(dataset("all"), 0.1, 0.2, 0)
    other = Dataset("small", ("ant", "bee"), ("all",), lambda _: image_set(seed=5))
    with pytest.raises(DataError, match=r"^small is not the data that the splits were drawn from"):
        splits.images(other, "test")


def test_fingerprints_are_of_pixels_labels_and_shape():
    images = image_set()
    pixels = images.pixels.copy()
    pixels[3, 0, 0] ^= 1
    labels = images.labels.copy()
    labels[0] = 1
    variants = [
        images,
        ImageSet(pixels, images.labels, images.names),
        ImageSet(images.pixels, labels, images.names),
        ImageSet(images.pixels.reshape(40, 4, 3, 1), images.labels, images.names),
        images.take(np.arange(39, -1, -1)),
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)
    assert fingerprint(images.take(np.arange(40))) == fingerprint(images)


@pytest.mark.parametrize("published", [("all",), ("train", "test")])
def test_splits_survive_their_file(tmp_path, published):
    source = dataset(*published)
    splits = make_splits(source, 0.1, 0.2, seed=5)
    path = tmp_path / "the splits.json"
    path.write_text(splits.to_json(), encoding="utf-8")
    again = read_splits(path)
    for name in ("train", "validation", "test"):
        ours, theirs = splits.images(source, name), again.images(source, name)
        assert ours.names == theirs.names
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    assert again.to_json() == splits.to_json()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["dataset"] == "small"
    assert content["seed"] == 5
    assert content["splits"]["validation"]["source"] == published[0]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"splits": {}}', '{"splits": {"test": {"source": "all", "indices": null}}}', "null"]
)
def test_damaged_files_are_refused(tmp_path, text):
    path = tmp_path / "splits.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"splits\.json holds no splits that can be read"):
        read_splits(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.json holds no splits that can be read: it is missing or damaged"):
        read_splits(tmp_path / "gone.json")


# Splits of a set that may grow


def growing(images: ImageSet, classes=("ant", "bee")) -> Dataset:
    return Dataset("small", classes, ("all",), lambda _: images, grows=True)


def test_members_are_found_whatever_was_added_or_renamed():
    images = image_set()
    splits = make_splits(growing(images), 0.1, 0.2, 0)
    more = image_set(seed=9)
    grown = ImageSet(
        np.concatenate([more.pixels, images.pixels[::-1]]),
        np.concatenate([more.labels, images.labels[::-1]]) + 1,
        tuple(f"renamed/{index}" for index in range(80)),
    )
    again = growing(grown, ("aardvark", "ant", "bee"))  # a class in front moves all labels
    for split in splits.parts:
        before, after = splits.images(growing(images), split), splits.images(again, split)
        np.testing.assert_array_equal(after.pixels, before.pixels)
        np.testing.assert_array_equal(after.labels, before.labels)


def test_members_that_are_gone_are_counted_and_named():
    images = image_set()
    splits = make_splits(growing(images), 0.1, 0.2, 0)
    members = splits.parts["test"].members
    left = growing(images.take(np.array([i for i in range(40) if images.hashes[i] not in members.hashes[:5]])))
    named = ", ".join(members.names[:3])
    count = len(members.names)
    with pytest.raises(
        DataError,
        match=rf"^small changed: of the run's {count} test images 5 no longer there \({named} and 2 more\); put them",
    ):
        splits.images(left, "test")


def test_members_with_another_label_are_named():
    images = image_set()
    splits = make_splits(growing(images), 0.1, 0.2, 0)
    labels = images.labels.copy()
    index = images.names.index(splits.parts["test"].members.names[0])
    labels[index] = 1 - labels[index]
    moved = growing(ImageSet(images.pixels, labels, images.names))
    with pytest.raises(DataError, match=r"test images 1 now of another class \(.* is '\w+' now, was '"):
        splits.images(moved, "test")


def test_members_survive_their_file(tmp_path):
    images = image_set()
    splits = make_splits(growing(images), 0.1, 0.2, 5)
    path = tmp_path / "splits.json"
    path.write_text(splits.to_json(), encoding="utf-8")
    again = read_splits(path)
    assert again.parts["test"].members == splits.parts["test"].members
    assert again.hashes() == splits.hashes() == {*images.hashes}
    assert make_splits(dataset("all"), 0.1, 0.2, 0).hashes() is None


def test_digits_are_split_by_class():
    digits = open_dataset("digits")
    splits = make_splits(digits, 0.1, 0.2, seed=0)
    images = {name: splits.images(digits, name) for name in ("train", "validation", "test")}
    assert sum(map(len, images.values())) == 1797
    assert abs(len(images["test"]) - 359) <= 5
    counts = np.bincount(digits.read("all").labels)
    assert np.abs(np.bincount(images["test"].labels) - 0.2 * counts).max() <= 0.5


# Copies, groups and folds


def published(**splits: ImageSet) -> Dataset:
    return Dataset("small", ("ant", "bee"), tuple(splits), lambda split: splits[split])


def test_copies_of_published_test_images_leave_training(caplog):
    train, test = image_set(), image_set("test", seed=2)
    train.pixels[3] = train.pixels[8] = test.pixels[5]
    source = published(train=train, test=test)
    with caplog.at_level(logging.INFO, "vitrail"):
        splits = make_splits(source, 0.1, 0.2, 0)
    assert caplog.messages == ["Left out of train: 2 images that test has, too (2 equal)"]
    used = np.concatenate([splits.parts[name].indices for name in ("train", "validation")])
    assert sorted({*range(40)} - {*used.tolist()}) == [3, 8]
    assert splits.parts["test"].indices is None
    again = Splits.from_json(splits.to_json())
    assert again.images(source, "train").names == splits.images(source, "train").names


def test_published_splits_without_copies_are_taken_whole():
    source = dataset("train", "validation", "test")
    assert all(part.indices is None for part in make_splits(source, 0.1, 0.2, 0).parts.values())


def test_a_class_all_of_whose_images_are_in_test_is_named():
    train, test = image_set(), image_set("test", seed=2)
    train.pixels[1::2] = test.pixels[1::2]
    with pytest.raises(
        DataError, match=r"^small has no image to train on for 1 of its 2 classes \(bee\): there are none"
    ):
        make_splits(published(train=train, test=test), 0.1, 0.2, 0)


def grouped_set(count, first=0, seed=0):
    """Five images of each of so many groups, every second group of each class."""
    images = image_set(count=5 * count, seed=seed)
    groups = tuple(f"g{first + index // 5}" for index in range(5 * count))
    return replace(images, labels=np.arange(5 * count) // 5 % 2, groups=groups)


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("fold", [None, "2/4"])
def test_groups_never_cross(grows, fold):
    images = grouped_set(24)
    source = replace(published(all=images), grows=grows)
    splits = make_splits(source, 0.1, 0.2, 0, fold=fold)
    found = [splits.images(source, name) for name in splits.parts]
    assert sum(map(len, found)) == 120
    assert sum(len({*part.groups}) for part in found) == 24


def test_added_groups_move_no_other():
    before, more = grouped_set(30), grouped_set(30, first=100, seed=3)
    both = ImageSet(
        np.concatenate([more.pixels, before.pixels]),
        np.concatenate([more.labels, before.labels]),
        more.names + before.names,
        groups=more.groups + before.groups,
    )
    first, second = (make_splits(growing(images), 0.1, 0.2, 0) for images in (before, both))
    for name in first.parts:
        assert {*first.parts[name].members.hashes} <= {*second.parts[name].members.hashes}


def test_folds_test_every_image_once():
    source = dataset("all")
    splits = [make_splits(source, 0.1, 0.2, 3, fold=f"{fold}/4") for fold in range(1, 5)]
    tested = [split.parts["test"].indices.tolist() for split in splits]
    assert sorted(index for fold in tested for index in fold) == list(range(40))
    assert [split.parts["validation"].indices.tolist() for split in splits] == [*tested[1:], tested[0]]
    assert (splits[1].fold, splits[1].rates) == ("2/4", {})
    assert Splits.from_json(splits[1].to_json()).fold == "2/4"


def test_with_a_published_test_folds_draw_validation():
    source = dataset("train", "test")
    splits = [make_splits(source, 0.1, 0.2, 3, fold=f"{fold}/2") for fold in (1, 2)]
    assert splits[0].parts["train"].indices.tolist() == splits[1].parts["validation"].indices.tolist()
    with pytest.raises(
        ConfigError, match=r"^data\.fold=1/2 has nothing to draw, as small has splits of its own; leave "
    ):
        make_splits(dataset("train", "validation", "test"), 0.1, 0.2, 3, fold="1/2")


def several_labels(count=60) -> ImageSet:
    labels = np.random.default_rng(0).integers(0, 2, (count, 2))
    return replace(image_set(count=count), labels=labels)


@pytest.mark.parametrize("grows", [False, True])
def test_images_of_several_labels_are_split_and_found_again(grows):
    images = several_labels()
    source = replace(published(all=images), grows=grows, multilabel=True)
    splits = Splits.from_json(make_splits(source, 0.1, 0.2, 0).to_json())
    order = np.random.default_rng(1).permutation(60) if grows else np.arange(60)
    later = replace(published(all=images.take(order)), grows=grows, multilabel=True)
    for name in splits.parts:
        found = splits.images(later, name)
        chosen = [images.names.index(image) for image in found.names]
        np.testing.assert_array_equal(found.labels, images.labels[chosen])
        np.testing.assert_array_equal(found.pixels, images.pixels[chosen])


def test_labels_of_an_image_that_changed_are_named():
    images = several_labels()
    source = replace(published(all=images), grows=True, multilabel=True)
    splits = make_splits(source, 0.1, 0.2, 0)
    index = images.names.index(splits.parts["test"].members.names[0])
    labels = images.labels.copy()
    labels[index] = 1 - labels[index, 0], 1
    was = " + ".join(name for name, label in zip(("ant", "bee"), images.labels[index], strict=True) if label)
    changed = replace(published(all=replace(images, labels=labels)), grows=True, multilabel=True)
    with pytest.raises(DataError, match=rf" is '.*bee' now, was '{re.escape(was)}'\); put them back"):
        splits.images(changed, "test")


def test_splits_of_older_runs_are_read():
    content = json.loads(make_splits(growing(image_set()), 0.1, 0.2, 0).to_json())
    del content["fold"]
    again = Splits.from_json(json.dumps(content))
    assert again.fold is None
    assert len(again.images(growing(image_set()), "train")) > 20


def test_images_that_are_all_nearly_equal_are_split_as_if_they_were_not(caplog):
    numbers = np.random.default_rng(0)
    scene = numbers.integers(0, 256, (1, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = (scene * 0.8 + np.arange(40)[:, None, None, None]).astype(np.uint8)  # ever brighter
    images = ImageSet(pixels, np.arange(40) % 2, number_names("all", 40))
    splits = make_splits(Dataset("film", ("a", "b"), ("all",), lambda split: images, grows=True), 0.2, 0.2, 0)
    assert all(len(part.members.names) for part in splits.parts.values())
    assert "So many images of film are nearly equal that nothing is left to train on" in caplog.text
