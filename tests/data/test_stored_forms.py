import numpy as np

from vitrail.data.headers import Header
from vitrail.data.stored_forms import mode_name, stored_findings, stored_statistics


def headers(*sizes, mode="RGB", orientation=1):
    return {f"{index:02d}.jpg": Header(rows, columns, mode, orientation) for index, (rows, columns) in enumerate(sizes)}


def told(*found):
    return [(one.kind, one.split, one.images) for one in stored_findings(dict(found))]


def test_images_much_smaller_or_larger_than_most_are_odd():
    found = stored_findings({"all": headers(*[(300, 400)] * 10, (60, 80), (3000, 4000), (400, 300), (200, 250))})
    assert [(one.kind, one.images) for one in found] == [("size", ("10.jpg",)), ("size", ("11.jpg",))]
    assert found[0].sentence == "10.jpg is 80x60; most are about 346 pixels wide and high"


def test_images_much_longer_than_most_are_odd_whichever_way_they_lie():
    found = stored_findings({"all": headers(*[(300, 400)] * 9, (400, 300), (800, 200), (200, 800), (310, 310))})
    assert [(one.kind, one.images) for one in found] == [("aspect_ratio", ("10.jpg",)), ("aspect_ratio", ("11.jpg",))]
    assert found[0].sentence == "10.jpg is 200x800; most are 1 to 1.3 or less long"


def test_where_all_sizes_occur_none_is_odd():
    numbers = np.random.default_rng(0)
    sides = np.exp(numbers.uniform(np.log(50), np.log(5000), 200)).astype(int)
    sizes = [
        (int(side), int(side * ratio) + 1) for side, ratio in zip(sides, numbers.uniform(0.2, 5, 200), strict=True)
    ]
    assert told(("all", headers(*sizes))) == []


def test_modes_other_than_the_usual_are_told_by_split():
    train = headers(*[(9, 9)] * 5) | {"grey.png": Header(9, 9, "L"), "deep.png": Header(9, 9, "I;16")}
    test = headers(*[(9, 9)] * 2) | {"print.jpg": Header(9, 9, "CMYK"), "clear.png": Header(9, 9, "RGBA")}
    found = stored_findings({"train": train, "test": test})
    assert [(one.split, one.images, one.details["mode"]) for one in found] == [
        ("train", ("deep.png",), "16-bit grey"),
        ("train", ("grey.png",), "grey"),
        ("test", ("print.jpg",), "CMYK"),
        ("test", ("clear.png",), "RGB with transparency"),
    ]
    assert found[1].sentence == "Stored as grey of train, where most are RGB: 1 of 7 images (grey.png)"
    assert mode_name("XYZ") == "XYZ"


def test_images_turned_by_exif_are_told_together():
    found = stored_findings({"all": headers(*[(9, 12)] * 3) | {"a.jpg": Header(9, 12, "RGB", 6)}})
    assert [(one.kind, one.images, one.sentence) for one in found] == [
        (
            "exif_rotated",
            ("a.jpg",),
            "Stored turned, and shown upright by EXIF as is done here: 1 of 4 images (a.jpg)",
        )
    ]


def test_statistics_are_quantiles_and_modes():
    found = stored_statistics(headers((100, 200), (100, 100), (300, 150)) | {"a.png": Header(100, 100, "L")})
    assert found["rows"] == {"0": 100.0, "0.05": 100.0, "0.5": 100.0, "0.95": 270.0, "1": 300.0}
    assert found["aspect_ratio"]["1"] == 2.0
    assert found["modes"] == {"RGB": 3, "grey": 1}
    assert stored_statistics({}) == {}
    assert stored_findings({"all": {}}) == []
