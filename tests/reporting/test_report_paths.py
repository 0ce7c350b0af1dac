from pathlib import Path

import pytest

from vitrail.reporting.report_paths import known_places, shown_name, shown_source, without_names, without_paths


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("digits", "digits"),
        ("hf:owner/name", "hf:owner/name"),
        ("/home/ann/photos", "photos"),
        ("../ann/photos/", "photos"),
        (r"C:\Users\ann\photos", "photos"),
        ("hf:../ann/model", "model"),
        ("https://user:token@host/photos", "photos"),
        ("https://user:token@host", "host"),
        ("s3://secret@bucket/photos?token=1", "photos"),
        ("hf:/home/ann/model", "model"),
    ],
)
def test_what_sources_are_called(source: str, shown: str) -> None:
    assert shown_source(source) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ant/1.png", "ant/1.png"),
        ("/home/ann/ant/1.png", "1.png"),
        (r"C:\ann\1.png", "1.png"),
        ("~ann/1.png", "1.png"),
        ("../ann/1.png", "1.png"),
        ("https://host/a/1.png?key=secret", "1.png"),
    ],
)
def test_what_images_are_called(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_sentences_lose_the_folders_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_paths("/home/ann/photos/a.png is dark") == "a.png is dark"
    assert without_paths(r"C:\Users\ann\a.png = ~/b/c.png (D:/x/y.png)") == "a.png = c.png (y.png)"
    assert without_paths(f"{tmp_path}/my photos/a.png is dark") == "my photos/a.png is dark"
    kept = "ant/1.png is train/00001, 1/5 of 0.5/s; and/or 3 / 4, hf:owner/name"
    assert without_paths(kept) == kept


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("/mnt/Ann Smith/photos/x.png is dark", "x.png is dark"),
        (r"C:\Users\Ann Smith\x.png", "x.png"),
        ("see /data/O'Neil/photos", "see photos"),
        ("/mnt/\u00e9t\u00e9,x/ann/a.png", "a.png"),
        ("/mnt/a; b/(ann)/a.png", "a.png"),
        ("../ann/secret/photos", "photos"),
        ("../../ann/photos", "photos"),
        ("./b/c/d.png", "d.png"),
        ("/home/ann/a.png, ant/b.png", "a.png, ant/b.png"),
        ("file:///home/ann/x/y.png", "y.png"),
        ("//server/ann/photos", "photos"),
        (r"\\server\share\photos", "photos"),
        ("hf:/home/ann/model: no such file", "hf:model: no such file"),
        ("'/home/ann/a.png' and \"/home/ann/b.png\"", "'a.png' and \"b.png\""),
        ("/home/ann/a.png is dark and ant/b.png too", "a.png is dark and ant/b.png too"),
        ("~ann/b/a.png", "a.png"),
        ("https://user:token@host/a/b?sig=abc, then", "https://host/a/b, then"),
        ("(s3://key:se@cret@bucket/photos#token)", "(s3://bucket/photos)"),
    ],
)
def test_paths_of_every_form(sentence: str, shown: str) -> None:
    assert without_paths(sentence) == shown


def test_known_places_may_hold_anything() -> None:
    places = known_places(['/mnt/a: b=c/the "best" of | 2024/photos', "../x <1>/y", "digits", "hf:owner/name"])
    assert not any("owner" in place for place in places)
    told = without_paths('/mnt/a: b=c/the "best" of | 2024/photos/ant/1.png, ../x <1>/y and ../x <1>/z', places)
    assert told == "ant/1.png, y and z"
    assert without_paths(f"{Path('../x <1>').absolute()}/z", places) == "z"


def test_names_of_images_are_left_out() -> None:
    known = {"a/Jane (1).png": "file 1", "b/Jane.png": "file 2"}
    assert without_names("a/Jane (1).png = b/Jane.png", known) == "file 1 = file 2"
    assert without_names("Jane.png is empty, Jane (1).png too", known) == "file 2 is empty, file 1 too"
    assert without_names("Not here: Doe, Jane.JPG could not be read") == "Not here: an image could not be read"
    kept = "predictions/test.parquet is missing: single answers are not known"
    assert without_names(kept) == kept
