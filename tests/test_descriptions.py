"""What config.json and preprocessor_config.json of other libraries say, and what becomes of files that say little."""

import pytest

from vitrail.descriptions import (
    distinct,
    numbered,
    stated_license,
    timm_classes,
    timm_preprocessing,
    transformers_classes,
    transformers_preprocessing,
)


def test_names_of_classes_are_made_distinct() -> None:
    assert distinct(["crane", "ant", "crane", "crane"]) == ("crane", "ant", "crane (2)", "crane (3)")
    assert numbered(2) == ("class_0", "class_1")


def test_timms_classes() -> None:
    assert timm_classes({"label_names": ["a", "b"]}, 2) == ("a", "b")
    assert timm_classes({"label_names": {"0": "a"}}, 2) == ("a", "class_1")
    assert timm_classes({"pretrained_cfg": {"label_names": ["a", "b"]}}, 2) == ("a", "b")
    assert timm_classes({"label_names": ["a", "b"]}, 3) == ("class_0", "class_1", "class_2")
    assert timm_classes({}, 1000)[0] == "tench, Tinca tinca"
    assert len({*timm_classes({}, 21843)}) == 21843


def test_transformers_classes() -> None:
    assert transformers_classes({"id2label": {"1": "b", "0": "a"}}, 2) == ("a", "b")
    assert transformers_classes({"id2label": {"0": "a"}}, 2) == ("class_0", "class_1")
    assert transformers_classes({}, 1) == ("class_0",)


@pytest.mark.parametrize(
    ("published", "fit", "note"),
    [
        ({"crop_pct": 1.0, "crop_mode": "center"}, "crop", ""),
        ({"crop_pct": 0.9, "crop_mode": "squash"}, "squash", ""),
        (
            {"crop_mode": "border", "interpolation": "bilinear"},
            "pad",
            "with bilinear resizing; here it sees all of the i",
        ),
        ({"crop_pct": 0.875}, "crop", "on the middle 88% of each side; here it sees all of the shorter side"),
    ],
)
def test_how_images_fit_by_timms_config(published: dict[str, object], fit: str, note: str) -> None:
    found, notes = timm_preprocessing("it", {"pretrained_cfg": published})
    assert found == fit
    assert len(notes) == bool(note)
    assert all(note in sentence for sentence in notes)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({}, ("squash", None)),
        ({"size": 224}, ("squash", (224, 224))),
        ({"size": {"height": 224, "width": 192}}, ("squash", (224, 192))),
        ({"size": {"shortest_edge": 256}}, ("crop", (256, 256))),
        ({"size": {"shortest_edge": 9}, "crop_size": {"height": 9, "width": 8}, "do_center_crop": 1}, ("crop", (9, 8))),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, ("crop", (224, 224))),
        ({"size": 224, "crop_size": 224, "do_center_crop": False}, ("squash", (224, 224))),
        ({"size": {"longest_edge": 224}}, ("squash", None)),
        ({"size": "large"}, ("squash", None)),
    ],
)  # fmt: skip
def test_how_images_fit_by_a_processors_config(processor: dict[str, object], expected: tuple[object, object]) -> None:
    fit, size, _ = transformers_preprocessing("it", processor)
    assert (fit, size) == expected


def test_licences_are_read_where_they_are_stated() -> None:
    assert stated_license({"pretrained_cfg": {"license": "mit"}}, "---\nlicense: other\n---\n") == "mit"
    assert stated_license({}, "---\ntags:\n- a\nlicense: apache-2.0\n---\nlicense: gpl\n") == "apache-2.0"
    assert stated_license({}, "license: mit\n") is None
    assert stated_license({}, "") is None
