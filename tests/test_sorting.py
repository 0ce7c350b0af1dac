import errno
import os
import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail import sorting
from vitrail.data.folders import list_class_folders
from vitrail.errors import CheckpointError, ConfigError
from vitrail.predictions import Prediction
from vitrail.sorting import class_folders, make_sorted_folder, outside, sort_images

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
DAY = 1_000_000_000  # seconds, in 2001


def said(path: Path, label: str | None, sure: bool = True) -> Prediction:
    return Prediction(str(path), label, None if label is None else 0.5, sure=sure)


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (DAY, DAY))
    return path


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def photos(tmp_path) -> list[Prediction]:
    """Two cats of one name, a dog, one that the model is not sure of, and a file that is no image."""
    folder = tmp_path / "photos"
    return [
        said(written(folder / "a" / "x.png", "cat 1"), "cat"),
        said(written(folder / "b" / "x.png", "cat 2"), "cat"),
        said(written(folder / "y.png", "dog"), "dog"),
        said(written(folder / "z.png", "either"), "dog", sure=False),
        said(written(folder / "torn.png", "?"), None),
    ]


SORTED = {"cat/x.png": "cat 1", "cat/x-2.png": "cat 2", "dog/y.png": "dog", "not_sure/z.png": "either"}


def test_images_are_copied_into_folders_of_their_class(tmp_path, photos):
    before = contents(tmp_path / "photos")
    heard: list[tuple[int, int]] = []
    done = sort_images(
        tmp_path / "out", photos, ["cat", "dog"], report=lambda count, total: heard.append((count, total))
    )
    assert contents(tmp_path / "out") == SORTED
    assert contents(tmp_path / "photos") == before
    assert {path.stat().st_mtime for path in (tmp_path / "out").rglob("*.png")} == {DAY}
    assert done.to_dict() == {
        "folder": str(tmp_path / "out"),
        "copied": 4,
        "hard_linked": 0,
        "soft_linked": 0,
        "present": 0,
        "renamed": {},
        "folders": {"cat": 2, "dog": 1, "not_sure": 1},
    }
    assert heard == [(count, 5) for count in range(1, 6)]


def test_sorting_again_changes_nothing(tmp_path, photos):
    for _ in range(3):
        done = sort_images(tmp_path / "out", photos, ["cat", "dog"])
        assert contents(tmp_path / "out") == SORTED
    assert (done.copied, done.present) == (0, 4)
    done = sort_images(tmp_path / "out", photos[::-1], ["cat", "dog"])
    assert (done.copied, done.present) == (0, 4)


def test_what_is_there_is_never_overwritten(tmp_path, photos):
    written(tmp_path / "out" / "cat" / "X.PNG", "of the user")
    written(tmp_path / "out" / "cat" / "x-2.png", "also")
    sort_images(tmp_path / "out", photos, ["cat", "dog"])
    mine = {"cat/X.PNG": "of the user", "cat/x-2.png": "also", "cat/x-3.png": "cat 1", "cat/x-4.png": "cat 2"}
    assert {name: text for name, text in contents(tmp_path / "out").items() if name.startswith("cat")} == mine


def test_equal_names_and_bytes_are_one_file(tmp_path):
    predictions = [said(written(tmp_path / folder / "x.png", "same"), "a") for folder in "pqr"]
    done = sort_images(tmp_path / "out", predictions, ["a", "b"])
    assert (contents(tmp_path / "out"), done.copied, done.present) == ({"a/x.png": "same"}, 1, 2)


def test_time_is_linear_in_images_of_one_name(tmp_path, monkeypatch):
    """Each file is read twice at most, and each name tried once, however many share it."""
    count = 300
    predictions = [said(written(tmp_path / str(index) / "x.png", f"{index:05d}"), "a") for index in range(count)]
    read: list[Path] = []
    tried: list[Path] = []
    digest, copy = sorting._digest, sorting._copy
    monkeypatch.setattr(sorting, "_digest", lambda path: (read.append(path), digest(path))[1])
    monkeypatch.setattr(sorting, "_copy", lambda source, target: (tried.append(target), copy(source, target))[1])
    for _ in range(2):
        read.clear()
        sort_images(tmp_path / "out", predictions, ["a", "b"])
        assert len(read) <= 2 * count
    assert len(tried) == len({*tried}) == count
    assert {*contents(tmp_path / "out")} == {"a/x.png", *(f"a/x-{number}.png" for number in range(2, count + 1))}


def test_a_name_that_another_program_takes_meanwhile(tmp_path, monkeypatch):
    copy = sorting._copy

    def rival(source: Path, target: Path) -> str:
        if target.name == "x.png":
            written(target, "rival")
        return copy(source, target)

    monkeypatch.setattr(sorting, "_copy", rival)
    sort_images(tmp_path / "out", [said(written(tmp_path / "x.png", "mine"), "a")], ["a", "b"])
    assert contents(tmp_path / "out") == {"a/x.png": "rival", "a/x-2.png": "mine"}


@needs_links
def test_links(tmp_path, photos, monkeypatch):
    done = sort_images(tmp_path / "hard", photos, ["cat", "dog"], link=True)
    assert (done.hard_linked, contents(tmp_path / "hard")) == (4, SORTED)
    assert (tmp_path / "hard" / "cat" / "x.png").samefile(photos[0].image)
    assert sort_images(tmp_path / "hard", photos, ["cat", "dog"], link=True).present == 4

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    done = sort_images(tmp_path / "soft", photos, ["cat", "dog"], link=True)
    assert (done.soft_linked, contents(tmp_path / "soft")) == (4, SORTED)
    assert (tmp_path / "soft" / "dog" / "y.png").is_symlink()
    assert sort_images(tmp_path / "soft", photos, ["cat", "dog"]).present == 4
    monkeypatch.setattr(os, "symlink", refused)
    done = sort_images(tmp_path / "copied", photos, ["cat", "dog"], link=True)
    assert (done.copied, contents(tmp_path / "copied")) == (4, SORTED)


@needs_links
def test_links_lead_to_the_file_itself_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(Path("real.png"), "a")
    Path("alias.png").symlink_to("real.png")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no")))
    sort_images(Path("out"), [said(Path("alias.png"), "a")], ["a", "b"], link=True)
    assert Path("out/a/alias.png").readlink() == Path(os.path.realpath("real.png"))


def test_a_full_disk_keeps_what_was_copied(tmp_path, photos, monkeypatch):
    copyfile = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if source.name == "y.png":
            target.write_text("d")  # a part of it
            raise OSError(errno.ENOSPC, "No space left on device")
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    sentence = r"y\.png could not be put into .*dog: No space left on device; 2 images are sorted, and the same command"
    with pytest.raises(CheckpointError, match=sentence):
        sort_images(tmp_path / "out", photos, ["cat", "dog"])
    assert contents(tmp_path / "out") == {"cat/x.png": "cat 1", "cat/x-2.png": "cat 2"}
    monkeypatch.undo()
    done = sort_images(tmp_path / "out", photos, ["cat", "dog"])
    assert (done.copied, done.present, contents(tmp_path / "out")) == (2, 2, SORTED)


def test_a_file_where_a_class_folder_should_be(tmp_path, photos):
    written(tmp_path / "out" / "cat", "in the way")
    with pytest.raises(CheckpointError, match=r"x\.png could not be put into .*cat: "):
        sort_images(tmp_path / "out", photos, ["cat", "dog"])
    assert contents(tmp_path / "out") == {"cat": "in the way"}


def test_long_file_names_leave_room_for_a_number(tmp_path):
    name = "ü" * 123 + ".png"  # 250 bytes
    predictions = [said(written(tmp_path / folder / name, folder), "a") for folder in "pq"]
    for _ in range(2):
        sort_images(tmp_path / "out", predictions, ["a", "b"])
        assert contents(tmp_path / "out") == {f"a/{'ü' * 118}.png": "p", f"a/{'ü' * 118}-2.png": "q"}


def test_the_folder_is_one_to_train_on(tmp_path, photos):
    photos.append(said(written(tmp_path / "photos" / "deep.png", "deep"), "big/grey dog"))
    sort_images(tmp_path / "out", photos, ["big/grey dog", "cat", "dog"])
    listing = list_class_folders(tmp_path / "out")
    assert listing.classes == ("big/grey dog", "cat", "dog")
    assert [label for _, label in listing.splits["all"]] == ["big/grey dog", "cat", "cat", "dog"]


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (["cat", "Größe 2", "T-shirt/top"], ["cat", "Größe 2", "T-shirt/top"]),
        (["animals/cats", "animals/dogs"], ["animals/cats", "animals/dogs"]),
        (["animals", "animals/cats", "plants/a/b"], ["animals", "animals_cats", "plants_a_b"]),
        (["x", "X", "x-2/y"], ["x", "X-2", "x-2_y"]),
        (["not_sure", "a/not_sure"], ["not_sure-2", "a/not_sure"]),
        (["Not_Sure/x", "cat"], ["Not_Sure-2/x", "cat"]),
        (["..", ".", "/etc", "", "/", ".hidden"], ["_", "_-2", "etc", "_-3", "_-4", "_hidden"]),
        (["../../up", "a//b/"], ["_/_/up", "a/b"]),
        (["con", "Aux.jpg", "com1", "com10", "console"], ["_con", "_Aux.jpg", "_com1", "com10", "console"]),
        (['a<b>:"|?*\\', "x\n\x7f", "end. .", "a  "], ["a_b_______", "x__", "end", "a"]),
        (["Cat", "cat", "CAT", "cat-2"], ["Cat", "cat-2", "CAT-3", "cat-2-2"]),
        (["é", "e\u0301"], ["é", "e\u0301-2"]),
        (["x" * 300, "ü" * 150], ["x" * 200, "ü" * 100]),
        (["\udce9\ud800", "?"], ["__", "_"]),
        (["train", "car"], ["train", "car"]),
        (["train/steam", "car"], ["_train/steam", "car"]),
        (["train", "test"], ["_train", "_test"]),
    ],
)
def test_folders_of_classes(classes, folders):
    assert [*class_folders(classes).values()] == folders


@given(st.lists(st.text(st.sampled_from("aA./\\ _-2:\u0301é"), max_size=6), unique=True, max_size=8))
def test_folders_are_safe_and_apart(classes):
    made = class_folders(classes)
    assert [*made] == classes
    folders = [PurePosixPath(folder) for folder in made.values()]
    folded = [PurePosixPath(str(folder).casefold()) for folder in folders]
    assert len({*folded}) == len(classes)
    assert not any(one != other and one.is_relative_to(other) for one in folded for other in folded)
    for folder in folders:
        assert not folder.is_absolute()
        assert folder.parts[0].casefold() != "not_sure"
        assert not any(part in ("", ".", "..") or part[0] == "." or part[-1] in ". " for part in folder.parts)


@needs_links
def test_paths_below_the_folder_are_left_out(tmp_path):
    (tmp_path / "photos" / "out" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "outside").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "photos" / "out")
    names = ["photos/a.png", "photos/outside/b.png", "photos/out/c.png", "photos/out/cat/d.png", "alias/cat/d.png"]
    paths = [tmp_path / name for name in names]
    assert outside(paths, tmp_path / "photos" / "out") == outside(paths, tmp_path / "alias") == paths[:2]


def test_a_folder_that_cannot_be(tmp_path):
    written(tmp_path / "file", "x")
    with pytest.raises(ConfigError, match=r"file is a file; give --sort a folder"):
        make_sorted_folder(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"below could not be made: .*; sort into another"):
        make_sorted_folder(tmp_path / "file" / "below")
    make_sorted_folder(tmp_path / "new" / "one")
    make_sorted_folder(tmp_path / "new" / "one")
    assert (tmp_path / "new" / "one").is_dir()


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(CheckpointError, match=r"is not writable; change its permissions, or sort into another"):
        make_sorted_folder(tmp_path)
