import io

import numpy as np
import pytest
from PIL import Image

from vitrail.data.headers import Header, read_header
from vitrail.data.images import read_shape
from vitrail.errors import DataError


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation=None, taken=None, changed=None):
    tags = Image.Exif()
    if orientation is not None:
        tags[0x0112] = orientation
    if changed is not None:
        tags[0x0132] = changed
    if taken is not None:
        tags.get_ifd(0x8769)[0x9003] = taken
    return tags.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_image(tmp_path, kind, orientation):
    data = encode(Image.new("RGB", (6, 4)), kind, exif=exif(orientation, taken="2024:05:31 17:02:11"))
    (tmp_path / "photo").write_bytes(data)
    for source in (data, tmp_path / "photo", str(tmp_path / "photo")):
        header = read_header(source)
        rows, columns = (4, 6) if orientation < 5 else (6, 4)
        assert header == Header(rows, columns, "RGB", orientation, "2024:05:31 17:02:11")
        assert (header.rows, header.columns) == read_shape(source)[:2]


def test_time_is_when_the_picture_was_taken_else_when_it_was_changed():
    image = Image.new("L", (3, 3))
    both = encode(image, "JPEG", exif=exif(taken="2020:01:01 00:00:00", changed="2021:01:01 00:00:00"))
    assert read_header(both).exif_time == "2020:01:01 00:00:00"
    assert read_header(encode(image, "JPEG", exif=exif(changed="2021:01:01 00:00:00"))).exif_time is not None
    assert read_header(encode(image, "JPEG", exif=exif(taken="  "))).exif_time is None
    assert read_header(encode(image, "JPEG")).exif_time is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_are_those_of_the_file(mode):
    assert read_header(encode(Image.new(mode, (3, 5)), "PNG")) == Header(5, 3, mode)
    assert read_header(encode(Image.new("CMYK", (3, 5)), "JPEG")).mode == "CMYK"


def test_no_pixels_are_decoded():
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "PNG")
    assert read_header(data[:200]) == Header(64, 64, "RGB")


def test_damaged_metadata_counts_as_none():
    good = encode(Image.new("RGB", (6, 4)), "JPEG", exif=exif(6))
    assert read_header(good.replace(b"Exif\0\0", b"Exif\0\0\xff\xff\xff", 1)).orientation == 1
    assert read_header(encode(Image.new("RGB", (6, 4)), "JPEG", exif=exif(77))).orientation == 1


def test_what_is_no_image_is_refused_with_its_name():
    with pytest.raises(DataError, match=r"^row 3 is not an image that can be read: it is not in an image format"):
        read_header(b"hello", "row 3")
