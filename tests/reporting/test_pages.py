import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.errors import ConfigError
from vitrail.reporting.pages import check_report_path, data_uri, is_small, thumbnail

STYLES = (Path(__file__).parents[2] / "src/vitrail/reporting/templates/page.html").read_text(encoding="utf-8")


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("audit.txt", r"audit\.txt does not end in \.html; name the report so$"),
        ("none/audit.html", r"none does not exist; make that folder first, or write elsewhere$"),
        ("folder.html", r"folder\.html is a folder; write to a file in it$"),
    ],
)
def test_places_where_no_report_can_be_written(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigError, match=sentence):
        check_report_path(tmp_path / name)


def test_bytes_in_an_address() -> None:
    assert data_uri(b"\x00\xff", "png") == "data:image/png;base64,AP8="


def test_small_images_are_kept_to_the_bit_and_large_ones_made_small() -> None:
    small = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    assert is_small(small)
    np.testing.assert_array_equal(np.asarray(decoded(thumbnail(small))), small)
    large = np.full((50, 200, 1), 77, np.uint8)
    assert not is_small(large)
    shown = decoded(thumbnail(large, side=100))
    assert (shown.size, shown.format) == ((100, 25), "JPEG")
    assert np.abs(np.asarray(shown, int) - 77).max() <= 2


def test_padding_that_is_marked_is_white() -> None:
    pixels = np.zeros((4, 4, 2), np.uint8)
    pixels[:2] = [90, 255]
    shown = np.asarray(decoded(thumbnail(pixels)))
    assert (shown[:2] == 90).all()
    assert (shown[2:] == 255).all()


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = np.array([int(digits[place : place + 2], 16) for place in (0, 2, 4)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_stands_out_from_its_background_by_day_by_night_and_on_paper() -> None:
    palettes = [dict(re.findall(r"--(\w+): (#\w+);", line)) for line in STYLES.splitlines() if "--ink: " in line]
    assert len(palettes) == 3
    for palette in palettes:
        for ink in ("ink", "quiet", "link", "right", "wrong"):
            for paper in ("paper", "shade"):
                low, high = sorted(luminance(palette[name]) for name in (ink, paper))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (palette, ink, paper)
