"""What config.json and preprocessor_config.json of other libraries say, and what becomes of files that say little."""

import math

import pytest

from vitrail.descriptions import (
    Fitting,
    crop_rate_of,
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
    ("published", "fitting", "note"),
    [
        ({"crop_pct": 1.0, "crop_mode": "center"}, Fitting("crop"), ""),
        ({"crop_pct": 0.9, "crop_mode": "squash"}, Fitting("squash", 0.9), ""),
        ({"crop_pct": 0.95}, Fitting("crop", 0.95), ""),
        ({"mean": [0.5]}, Fitting("crop", 0.875), ""),  # timm's own default
        ({}, Fitting("crop"), ""),
        (
            {"crop_pct": 1, "interpolation": "bilinear"},
            Fitting("crop"),
            "it was measured on images resized by bilinear interpolation; here they are resized bicubically",
        ),
        (
            {"crop_mode": "border", "crop_pct": 0.9},
            Fitting("pad", 0.9),
            "it was measured on images padded with their mean colour; here they are padded with black",
        ),
    ],
)
def test_how_images_fit_by_timms_config(published: dict[str, object], fitting: Fitting, note: str) -> None:
    assert timm_preprocessing("it", {"pretrained_cfg": published}) == (fitting, (note,) if note else ())


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({}, (Fitting("squash"), None)),
        ({"size": 224}, (Fitting("squash"), (224, 224))),
        ({"size": {"height": 224, "width": 192}}, (Fitting("squash"), (224, 192))),
        ({"size": {"shortest_edge": 256}}, (Fitting("crop"), (256, 256))),
        (
            {"size": {"shortest_edge": 9}, "crop_size": {"height": 9, "width": 8}, "do_center_crop": 1},
            (Fitting("crop"), (9, 8)),
        ),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, (Fitting("crop", 0.875), (224, 224))),
        (
            {"size": {"height": 256, "width": 256}, "crop_size": 224, "do_center_crop": True},
            (Fitting("squash", 0.875), (224, 224)),
        ),
        ({"size": 224, "crop_size": 224, "do_center_crop": False}, (Fitting("squash"), (224, 224))),
        ({"size": {"longest_edge": 224}}, (Fitting("squash"), None)),
        ({"size": "large"}, (Fitting("squash"), None)),
    ],
)
def test_how_images_fit_by_a_processors_config(processor: dict[str, object], expected: tuple[object, object]) -> None:
    fitting, size, notes = transformers_preprocessing("it", processor)
    assert (fitting, size) == expected
    assert notes == ()


def test_the_part_that_is_kept_leads_back_to_the_size_before() -> None:
    for cropped in range(1, 300, 7):
        for resized in range(cropped, 400):
            assert math.floor(cropped / crop_rate_of(cropped, resized)) == resized
    assert crop_rate_of(224, 256) == 0.875
    assert crop_rate_of(256, 224) == 1


def test_licences_are_read_where_they_are_stated() -> None:
    assert stated_license({"pretrained_cfg": {"license": "mit"}}, "---\nlicense: other\n---\n") == "mit"
    assert stated_license({}, "---\ntags:\n- a\nlicense: apache-2.0\n---\nlicense: gpl\n") == "apache-2.0"
    assert stated_license({}, "license: mit\n") is None
    assert stated_license({}, "") is None
