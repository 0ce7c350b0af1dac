import json

import numpy as np
import pytest
from photographs import photographs
from PIL import Image, ImageFilter

from vitrail.data import full_audit
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.full_audit import audit_fully
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset

SIZE = Preprocess(image_size=(64, 64), channels=3, fit="squash")
NUMBER = 20


@pytest.fixture
def clean(tmp_path):
    """20 photographs of each of two classes to train on and 5 to test, 100x100, as PNG."""
    images = iter(photographs(2 * NUMBER + 10, 100))
    for split, number in (("train", NUMBER), ("test", 5)):
        for label in ("ant", "bee"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for index in range(number):
                Image.fromarray(next(images)).save(folder / f"{index:02d}.png")
    return tmp_path / "photos"


def audit(root):
    return audit_fully(open_dataset(root), SIZE)


def found_in(root):
    return {(one.kind, one.split, one.images) for one in audit(root).findings}


def changed(image, change):
    image = Image.open(image)
    image.load()
    return change(image)


def test_nothing_is_found_in_a_clean_set(clean):
    found = audit(clean)
    assert (found.findings, found.notes) == ((), ())
    assert found.sentences() == ["photos: 40 train, 10 test images of 2 classes (20 each)"]
    assert found.statistics["splits"]["train"]["modes"] == {"RGB": 40}
    assert found.statistics["splits"]["test"]["rows"]["0.5"] == 100


def test_planted_faults_of_every_kind_are_found_and_nothing_else(clean):
    train, test = clean / "train", clean / "test"
    (train / "ant" / "broken.png").write_bytes(b"")
    (train / "ant" / "equal.png").write_bytes((train / "ant" / "00.png").read_bytes())
    changed(train / "ant" / "01.png", lambda image: image.resize((50, 50))).save(train / "ant" / "near.png")
    changed(train / "bee" / "02.png", lambda image: image).save(train / "ant" / "label.jpg", quality=60)
    changed(test / "bee" / "03.png", lambda image: image.point(lambda value: value * 0.9)).save(
        train / "bee" / "leak.png"
    )
    (train / "bee" / "leak_equal.png").write_bytes((test / "bee" / "04.png").read_bytes())
    extra = photographs(8, 100, seed=1)
    Image.fromarray(extra[0]).resize((20, 20)).save(train / "ant" / "small.png")
    Image.fromarray(extra[1]).resize((200, 60)).save(train / "ant" / "long.png")
    Image.fromarray(extra[2]).convert("L").save(train / "bee" / "grey.png")
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(extra[3]).save(train / "bee" / "turned.png", exif=tags)
    Image.new("RGB", (100, 100), (90, 120, 80)).save(test / "ant" / "empty.png")
    Image.fromarray(extra[4] // 12).save(train / "ant" / "dark.png")
    Image.fromarray(235 + extra[5] // 13).save(train / "ant" / "bright.png")
    Image.fromarray(extra[6]).filter(ImageFilter.GaussianBlur(8)).save(train / "bee" / "blurred.png")

    def names(split, *files):
        return tuple(f"{split}/{file}" for file in files)

    assert found_in(clean) == {
        ("broken", "train", names("train", "ant/broken.png")),
        ("exact_duplicate", "train", names("train", "ant/00.png", "ant/equal.png")),
        ("near_duplicate", "train", names("train", "ant/01.png", "ant/near.png")),
        ("near_duplicate", "train", names("train", "ant/label.jpg", "bee/02.png")),
        ("conflicting_labels", "train", names("train", "ant/label.jpg", "bee/02.png")),
        ("shared_between_splits", "train/test", (*names("train", "bee/leak.png"), *names("test", "bee/03.png"))),
        ("shared_between_splits", "train/test", (*names("train", "bee/leak_equal.png"), *names("test", "bee/04.png"))),
        ("size", "train", names("train", "ant/small.png")),
        ("aspect_ratio", "train", names("train", "ant/long.png")),
        ("mode", "train", names("train", "bee/grey.png")),
        ("exif_rotated", "train", names("train", "bee/turned.png")),
        ("empty", "test", names("test", "ant/empty.png")),
        ("dark", "train", names("train", "ant/dark.png")),
        ("bright", "train", names("train", "ant/bright.png")),
        ("blurred", "train", names("train", "bee/blurred.png")),
    }
    told = json.loads(json.dumps(audit(clean).to_dict()))
    assert len(told["findings"]) == 15


def test_imbalance_is_told_from_a_factor_of_five(clean):
    for file in sorted((clean / "train" / "bee").iterdir())[4:]:
        file.unlink()
    (found,) = audit(clean).findings
    assert (found.kind, found.split, found.images) == ("class_imbalance", "train", ())
    assert found.sentence == "ant has 5.0 times as many images as bee: 20 to 4"
    assert found.details == {"smallest": "bee", "largest": "ant", "ratio": 5.0}


def test_sets_without_files_are_audited_in_blocks_and_heard_of(monkeypatch):
    monkeypatch.setattr(full_audit, "BLOCK_BYTES", 1024 * 32 * 32)
    images = photographs(1500, 32)[..., :1]
    images[1499] = (images[0] * 0.7 + 20).astype(np.uint8)
    labels = np.zeros((1500, 2), np.int64)
    labels[:750, 0] = labels[750:, 1] = 1
    names = tuple(map(str, range(1500)))
    dataset = Dataset("noise", ("a", "b"), ("all",), lambda _: ImageSet(images, labels, names), multilabel=True)
    heard: list[tuple[int, int]] = []
    found = audit_fully(
        dataset, Preprocess(image_size=(32, 32), channels=1, fit="pad"), lambda done, total: heard.append((done, total))
    )
    assert [(one.kind, one.images, one.details["classes"]) for one in found.findings] == [
        ("near_duplicate", ("0", "1499"), [["a"], ["b"]]),
        ("conflicting_labels", ("0", "1499"), [["a"], ["b"]]),
    ]
    assert heard == [(1024, 1500), (1500, 1500)]
    assert found.notes == ("Blur is not looked for, as images are prepared at less than 64 pixels",)
    assert found.num_images == {"all": 1500}


@pytest.mark.slow
def test_in_photographs_of_clothes_one_pair_is_found(data_folder):
    found = audit(data_folder("clothing"))
    # Looked at: one pair of black shorts, photographed once, is in two classes; t-shirts are seven times skirts.
    assert [(one.kind, one.split) for one in found.findings] == [
        ("near_duplicate", "train"),
        ("conflicting_labels", "train"),
        ("class_imbalance", "train"),
    ]
