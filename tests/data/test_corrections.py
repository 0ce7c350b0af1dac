import pytest

from vitrail.data.corrections import check_corrections, corrected, read_corrections
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.errors import ConfigError, DataError

SIZE = Preprocess(image_size=(8, 8), channels=3, fit="squash")


@pytest.fixture
def photos(tmp_path, write_tree):
    return write_tree(tmp_path / "photos", {"ant": 3, "bee": 3, "wasp": 2})


@pytest.fixture
def correct(tmp_path, photos):
    """`correct(lines)`: the data set with these corrections, and its images as name -> class."""

    def run(text):
        path = tmp_path / "corrections.csv"
        path.write_text(text, encoding="utf-8")
        lines = read_corrections(path)
        dataset = corrected(open_dataset(photos), lines)
        check_corrections(open_dataset(photos), lines, SIZE)
        images = dataset.prepared("all", SIZE)
        return dataset, {
            name: dataset.classes[label] for name, label in zip(images.names, images.labels.tolist(), strict=True)
        }

    return run


def test_images_are_dropped_and_relabelled(correct, photos):
    dataset, images = correct("what,action,label\nant/000.png,drop,\nbee/001.png,relabel,wasp\n")
    assert dataset.classes == ("ant", "bee", "wasp")
    assert "ant/000.png" not in images
    assert images["bee/001.png"] == "wasp"
    assert len(images) == 7
    assert len(list(photos.rglob("*.png"))) == 8  # the files are as they were


def test_classes_are_renamed_and_merged(correct):
    dataset, images = correct("ant,rename,beetle\nwasp,merge,bee\n")
    assert dataset.classes == ("bee", "beetle")
    assert [images[name] for name in ("ant/000.png", "bee/000.png", "wasp/000.png")] == ["beetle", "bee", "bee"]


def test_a_class_can_be_merged_into_a_renamed_one(correct):
    _, images = correct("ant,rename,insect\nwasp,merge,insect\n")
    assert images["ant/000.png"] == images["wasp/001.png"] == "insect"


def test_images_are_known_by_hash_and_all_copies_change(correct, photos, write_photo):
    write_photo(photos / "bee" / "copy.png", seed=0)
    content = open_dataset(photos).prepared("all", SIZE).hashes[0]
    _, images = correct(f"{content[:12]},relabel,wasp\n")
    assert images["ant/000.png"] == images["bee/copy.png"] == "wasp"


def test_longer_paths_and_backslashes_are_understood(correct, photos):
    _, images = correct(f"{photos}/ant/000.png,relabel,bee\n.\\bee\\001.png,drop,\n# a remark\n\n")
    assert images["ant/000.png"] == "bee"
    assert "bee/001.png" not in images


def test_the_end_of_a_path_is_enough_where_it_is_the_only_one(correct, photos, write_photo):
    write_photo(photos / "wasp" / "nest" / "sting.png", seed=60)
    _, images = correct("sting.png,relabel,bee\n")
    assert images["wasp/nest/sting.png"] == "bee"
    with pytest.raises(
        ConfigError,
        match=r"^'000\.png' is the end of 3 images' paths \(ant/000\.png, bee/000\.png, wasp/000\.png\); wri",
    ):
        correct("000.png,drop,\n")


def test_a_broken_file_may_be_dropped(correct, photos):
    (photos / "ant" / "broken.png").write_bytes(b"")
    _, images = correct("ant/broken.png,drop,\n")
    assert len(images) == 8


def test_a_broken_file_that_is_dropped_is_not_missed(correct, photos):
    for name in ("ant/000.png", "bee/001.png"):
        (photos / name).write_bytes(b"")
    dataset, _ = correct("ant/000.png,drop,\n")
    assert [name for name, _ in dataset.broken["all"]] == ["bee/001.png"]


def test_labels_mean_the_new_names(correct):
    _, images = correct("wasp,rename,hornet\nant/000.png,relabel,hornet\n")
    assert images["ant/000.png"] == "hornet"
    with pytest.raises(
        ConfigError, match=r"^Line 2 of the corrections: no class is called 'wasp'\. The classes are ant"
    ):
        correct("wasp,rename,hornet\nant/000.png,relabel,wasp\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds no corrections; a line is such as: train/shirt/a\.jpg,relabel,pants$"),
        ("ant/000.png,dorp,\n", r"line 1: 'dorp' is no action\. Did you mean 'drop'\? Use one of drop, relabel"),
        ("ant/000.png\n", r"line 1: '' is no action\. Use one of drop"),
        ("ant/000.png,relabel,\n", r"line 1: relabel needs a label in the third column$"),
        (",drop,\n", r"line 1: drop needs something to act on$"),
        (
            "ant/9.png,drop,\nbee/9.png,drop,\n",
            r"^2 corrections name no image of photos: 'ant/9\.png' in line 1, 'bee/9",
        ),
        ("ant/9.png,drop,\n", r"^1 correction names no image of photos: 'ant/9\.png' in line 1; use paths"),
        (
            "ant/000.png,drop,\nant/000.png,relabel,bee\n",
            r"^Lines 1 and 2 of the corrections contradict each other: drop and relabel bee for 'ant/000\.png'; leave",
        ),
        (
            "ant/000.png,relabel,wasp\n./ant/000.png,relabel,bee\n",
            r"^Lines 1 and 2 of the corrections contradict each other: relabel wasp and relabel bee for 'ant/000\.png'",
        ),
        ("ant,rename,x\nant,merge,bee\n", r"^Lines 1 and 2 of the corrections contradict each other: rename x and"),
        (
            "bees,rename,x\n",
            r"^Line 1 of the corrections: photos has no class 'bees'\. Did you mean 'bee'\? Its classes",
        ),
        (
            "ant,rename,bee\n",
            r"^Line 1 of the corrections: there is a class 'bee' already; to make 'ant' part of it, w",
        ),
        ("ant,merge,bees\n", r"^Line 1 of the corrections: no class 'bees' to merge into\. Did you mean 'bee'\?$"),
        ("ant,merge,bee\nwasp,merge,bee\n", r"^The corrections leave one class, bee; a classifier needs two or more$"),
    ],
)
def test_what_cannot_be_understood_is_refused(correct, text, message):
    with pytest.raises(ConfigError, match=message):
        correct(text)


def test_a_class_that_would_be_empty_is_refused(correct):
    with pytest.raises(
        DataError, match=r"^The corrections leave no training image of wasp in photos; leave some of their lines out"
    ):
        correct("wasp/000.png,drop,\nwasp/001.png,relabel,ant\n")


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.csv cannot be read: No such file"):
        read_corrections(tmp_path / "gone.csv")
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9.png,drop,\n")
    with pytest.raises(
        ConfigError, match=r"latin\.csv cannot be read: it is not UTF-8 text; --corrections takes a CSV"
    ):
        read_corrections(tmp_path / "latin.csv")


def test_the_beginning_of_several_hashes_is_refused(tmp_path, write_tree, monkeypatch):
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 2})
    images = open_dataset(root).prepared("all", SIZE)
    monkeypatch.setitem(images.__dict__, "hashes", ("abcdef0123", "abcdef0199", "11111111", "22222222"))
    from vitrail.data.corrections import find_images

    assert find_images(images, ["abcdef012"]) == {"abcdef012": [0]}
    with pytest.raises(ConfigError, match=r"^'abcdef01' is the beginning of 2 images' hashes; give more digits$"):
        find_images(images, ["abcdef01"])


def test_corrections_may_name_images_of_any_split(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"train/ant": 2, "train/bee": 2, "test/ant": 1, "test/bee": 1})
    path = tmp_path / "corrections.csv"
    path.write_text("test/ant/000.png,drop,\ntrain/ant/000.png,relabel,bee\n", encoding="utf-8")
    lines = read_corrections(path)
    dataset = corrected(open_dataset(root), lines)
    check_corrections(open_dataset(root), lines, SIZE)
    assert dataset.prepared("test", SIZE).names == ("test/bee/000.png",)
    assert dataset.prepared("train", SIZE).labels.tolist() == [1, 0, 1, 1]


def test_the_end_of_a_path_in_two_splits_is_refused(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"train/ant": 2, "train/bee": 2, "test/ant": 1, "test/bee": 1})
    path = tmp_path / "corrections.csv"
    path.write_text("ant/000.png,drop,\n", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"^'ant/000\.png' is the end of 2 images' paths \(test/ant/000\.png, train/ant"
    ):
        check_corrections(open_dataset(root), read_corrections(path), SIZE)
