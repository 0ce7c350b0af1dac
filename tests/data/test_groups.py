import logging
import re

import numpy as np
import pytest
from PIL import Image

from vitrail.data.groups import bursts_of, check_group, interval_groups, with_groups
from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions, Records
from vitrail.data.sources import open_dataset
from vitrail.errors import ConfigError

SIZE = Preprocess(image_size=(4, 4), channels=3, fit="squash")


def records(names, labels=None, root=None, groups=None):
    """Records of image files of these names, which need not exist."""
    labels = np.zeros(len(names), np.int64) if labels is None else np.array(labels, np.int64)
    return Records("here", names, labels, lambda index: root / names[index], lambda _: (0, 0, 0), groups)


def grouped(names, group, split="all", **more):
    found = records(names, **more)
    options = ReadOptions(group=group)
    return with_groups(found, ["ant", "pets/cat"], options, split, lambda: bursts_of({split: found})).groups


def test_without_a_wish_records_stay_as_they_are():
    one = records(["a.png"])
    assert with_groups(one, ["ant"], ReadOptions(), "all", dict) is one


def test_a_folder_below_the_class_is_a_group(caplog):
    names = ["ant/p1/a.png", "ant/p1/2024/b.png", "ant/c.png", "pets/cat/p1/d.png", "train/ant/p2/e.png", "f.png"]
    with caplog.at_level(logging.WARNING, "vitrail"):
        assert grouped(names, "folder", labels=[0, 0, 0, 1, 0, 0]) == ["p1", "p1", "", "p1", "p2", ""]
    assert caplog.messages == [
        "data.group=folder finds no group for 2 of 6 images (ant/c.png, f.png); each is one by itself"
    ]


def test_rows_of_a_table_are_grouped_by_their_own_folder():
    assert grouped(["x/1/a.png", "x/1/b.png", "x/2/c.png"], "folder") == ["x/1", "x/1", "x/2"]


def test_a_pattern_names_the_group(caplog):
    names = ["ant/p07_1.png", "ant/p07_2.png", "ant/p11_1.png", "ant/x.png"]
    with caplog.at_level(logging.WARNING, "vitrail"):
        assert grouped(names, r"regex:/(p\d+)_", split="test") == ["p07", "p07", "p11", ""]
    assert "finds no group for 1 of 4 images of test (ant/x.png)" in caplog.text


@pytest.mark.parametrize("group", ["folder", "exif_time", "regex:(z+)"])
def test_a_wish_that_groups_nothing_is_refused(group, tmp_path):
    message = f"data.group={group} finds a group for none of the 1 images (a.png)"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        grouped(["a.png"], group, root=tmp_path)
    assert grouped(["a.png"], group, root=tmp_path, split="test") == [""]


def photograph(path, time=None, camera=None):
    exif = Image.Exif()
    if time is not None:
        exif.get_ifd(0x8769)[0x9003] = time
    if camera is not None:
        exif[0x0110] = camera
    Image.new("RGB", (8, 8)).save(path, exif=exif)


def test_photographs_of_one_minute_and_camera_are_a_group(tmp_path):
    taken = {
        "a.jpg": ("2024:05:31 17:59:40", "X100"),
        "b.jpg": ("2024:05:31 18:00:30", "X100"),
        "c.jpg": ("2024:05:31 18:01:29", "X100"),  # within a minute of b, not of a
        "d.jpg": ("2024:05:31 18:02:30", "X100"),
        "e.jpg": ("2024:05:31 18:00:30", "Z9"),
        "f.jpg": ("2024:05:31 18:00:31", None),
        "g.jpg": (None, "X100"),
        "h.jpg": ("long ago", "X100"),
    }
    for name, (time, camera) in taken.items():
        photograph(tmp_path / name, time, camera)
    (tmp_path / "i.jpg").write_bytes(b"no")
    groups = grouped([*taken, "i.jpg"], "exif_time", root=tmp_path)
    first = "X100 2024-05-31 17:59:40"
    assert groups[:4] == [first, first, first, "X100 2024-05-31 18:02:30"]
    assert groups[4:] == ["Z9 2024-05-31 18:00:30", "2024-05-31 18:00:31", "", "", ""]


def test_a_burst_goes_over_published_splits(tmp_path):
    for split, second in (("train", 1), ("test", 2)):
        for label in ("ant", "bee"):
            (tmp_path / split / label).mkdir(parents=True)
            photograph(tmp_path / split / label / "a.jpg", f"2024:05:31 18:00:0{second}")
    source = open_dataset(tmp_path, options=ReadOptions(group="exif_time"))
    found = [source.prepared(split, SIZE).groups for split in ("test", "train")]
    assert found == [("2024-05-31 18:00:01",) * 2] * 2


def test_a_column_is_taken_as_the_table_gives_it():
    options = ReadOptions(group="column", group_column="patient")
    one = records(["a.png"], groups=["p1"])
    assert with_groups(one, ["ant"], options, "all", dict) is one
    with pytest.raises(
        ConfigError, match=r"^data\.group=column is for tables; files have folder, exif_time and regex:P"
    ):
        with_groups(records(["a.png"]), ["ant"], options, "all", dict)


@pytest.mark.parametrize(
    ("group", "column", "message"),
    [
        (
            "foldr",
            None,
            "data.group=foldr is not possible. Did you mean 'folder'? Use one of folder, column, exif_time, ",
        ),
        (
            "regex:(",
            None,
            "data.group=regex:( is no regular expression: missing ), unterminated subpattern at position 0",
        ),
        ("regex:p.", None, "data.group=regex:p. has no part in brackets; put them around what is equal within a group"),
        ("column", None, "data.group=column needs the name of a column; give it as --set data.group_column=NAME"),
        ("folder", "patient", "data.group=folder and data.group_column=patient are two ways to group; leave one of "),
    ],
)
def test_what_is_no_grouping_is_refused(group, column, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        check_group(group, column)


def test_class_folders_may_hold_nothing_but_groups(tmp_path, write_tree):
    write_tree(tmp_path / "set", {"ant/p1": 2, "ant/p2": 1, "bee/p1": 2, "bee": 1})
    plain = open_dataset(tmp_path / "set")
    assert plain.classes == ("ant/p1", "ant/p2", "bee")
    images = open_dataset(tmp_path / "set", options=ReadOptions(group="folder"))
    found = images.prepared("all", SIZE)
    assert images.classes == ("ant", "bee")
    assert found.groups == ("p1", "p1", "p2", "", "p1", "p1")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_groups_of_sets_that_are_joined_are_one_by_name(tmp_path, write_tree):
    for place, name in enumerate(("one", "two")):
        write_tree(tmp_path / name, {"ant/p1": 1, "bee/p2": 1, "bee": 1}, first=9 * place)
    joined = open_dataset(tmp_path / "one", tmp_path / "two", options=ReadOptions(group="folder"))
    assert joined.prepared("all", SIZE).groups == ("p1", "", "p2") * 2


def test_sets_without_files_have_no_groups_to_look_for():
    with pytest.raises(
        ConfigError, match=r"^data\.group=folder looks at image files, and digits has none; leave it out$"
    ):
        open_dataset("digits", options=ReadOptions(group="folder"))


def test_for_intervals_every_image_has_a_group():
    assert interval_groups(None) is None
    assert len({*interval_groups(["p", "p", "", ""])}) == 3
