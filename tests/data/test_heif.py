"""The files in heic/ were made with pillow_heif: 64x48, quarters red, green, blue and yellow; then turned and so on."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitrail
from vitrail.data.images import list_images, read_image, read_shape
from vitrail.errors import DataError

HEIC = Path(__file__).parent / "heic"
RED, GREEN, BLUE, YELLOW, WHITE = (200, 30, 30), (30, 160, 40), (40, 60, 200), (240, 220, 40), (255, 255, 255)


def quarters(image):
    """The colours in the middle of an image's quarters, in reading order."""
    columns, rows = image.size
    places = [(x, y) for y in (rows // 4, 3 * rows // 4) for x in (columns // 4, 3 * columns // 4)]
    return [image.getpixel(place) for place in places]


@pytest.mark.parametrize(
    ("name", "size", "colours"),
    [
        ("upright", (64, 48), (RED, GREEN, BLUE, YELLOW)),
        ("turned", (48, 64), (BLUE, RED, YELLOW, GREEN)),
        ("mirrored", (48, 64), (RED, BLUE, GREEN, YELLOW)),
        (
            "tagged",
            (64, 48),
            (RED, GREEN, BLUE, YELLOW),
        ),  # its EXIF says turned, HEIF's own rotation, which counts, not
        ("transparent", (64, 48), (WHITE, GREEN, BLUE, YELLOW)),
    ],
)
def test_heic_is_read_upright_once(tmp_path, name, size, colours):
    path = HEIC / f"{name}.heic"
    (tmp_path / "photo.jpg").write_bytes(path.read_bytes())
    for source in (path, path.read_bytes(), tmp_path / "photo.jpg"):
        image = read_image(source)
        assert (image.mode, image.size) == ("RGB", size)
        np.testing.assert_allclose(quarters(image), colours, atol=3)
    assert read_shape(path) == (size[1], size[0], 3)
    np.testing.assert_array_equal(np.asarray(read_image(image)), np.asarray(image))


def test_grey_heic_stays_grey():
    image = read_image(HEIC / "grey.heic")
    expected = [round(0.299 * red + 0.587 * green + 0.114 * blue) for red, green, blue in (RED, GREEN, BLUE, YELLOW)]
    assert image.mode == "L"
    np.testing.assert_allclose(quarters(image), expected, atol=3)
    assert read_shape(HEIC / "grey.heic") == (48, 64, 1)


def test_folders_list_heic():
    assert HEIC / "turned.heic" in list_images([HEIC])


@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_truncated_heic_is_refused(part):
    data = (HEIC / "turned.heic").read_bytes()
    with pytest.raises(DataError, match=r"^cat\.heic is not an image that can be read: it "):
        read_image(data[: int(part * len(data))], "cat.heic")


def test_the_process_survives_metadata_that_pi_heif_does_not():
    data = bytearray((HEIC / "turned.heic").read_bytes())
    place = data.index(b"Exif")
    for index in range(place, place + 4):
        damaged = bytes(data[:index]) + b"\xff" + bytes(data[index + 1 :])
        with pytest.raises(DataError, match=r"it is damaged \(its list of items is not text\)$"):
            read_image(damaged)


@pytest.mark.slow
def test_any_damage_gives_an_image_or_a_data_error():
    # In a process of its own: a decoder that is not up to a file ends all of it.
    program = """
import sys, warnings
from pathlib import Path
from vitrail.data.images import read_image
from vitrail.errors import DataError
warnings.simplefilter("error")
refused = 0
for path in sorted(Path(sys.argv[1]).glob("*.heic")):
    good = path.read_bytes()
    for place in range(len(good)):
        for value in (0, 1, 255):
            try:
                read_image(good[:place] + bytes([value]) + good[place + 1 :])
            except DataError:
                refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", program, str(HEIC)], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert int(done.stdout) > 1000


def test_without_the_library_the_command_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    path = HEIC / "turned.heic"
    sentence = (
        f"{path} is a HEIC or HEIF image, which needs a library that is not installed; "
        "install it with: pip install 'vitrail[heic]'"
    )
    for read in (read_image, read_shape):
        with pytest.raises(DataError, match=f"^{re.escape(sentence)}$"):
            read(path)


def test_avif_needs_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    file = io.BytesIO()
    Image.new("RGB", (16, 16), RED).save(file, "AVIF")
    data = file.getvalue()
    assert data[4:12] == b"ftypavif"
    for brand in (b"avif", b"mif1"):
        np.testing.assert_allclose(read_image(data[:8] + brand + data[12:]).getpixel((8, 8)), RED, atol=5)


def test_heic_photographs_are_images_of_a_class_folder(tmp_path):
    for name, kind in {"upright": "wide", "transparent": "wide", "turned": "tall", "mirrored": "tall"}.items():
        (tmp_path / kind).mkdir(exist_ok=True)
        shutil.copy(HEIC / f"{name}.heic", tmp_path / kind / f"{name}.HEIC")
    found = vitrail.audit(tmp_path)
    assert sum(map(sum, found.counts.values())) == 4
    assert not any(found.broken.values())


def test_it_is_loaded_by_the_first_heic_only():
    program = """
import sys
from vitrail.data import images
print("pi_heif" in sys.modules)
images.read_image(sys.argv[1])
print("pi_heif" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(HEIC / "upright.heic")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
