import contextlib
import io
import re
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vitrail.data.images import IMAGE_SUFFIXES, list_images, read_image, read_shape
from vitrail.errors import ConfigError, DataError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source) -> np.ndarray:
    return np.asarray(read_image(source))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, **chunks: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    extra = b"".join(chunk(kind.encode(), body) for kind, body in chunks.items())
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_keep_every_pixel(tmp_path, shape, kind):
    array = noise(*shape)
    path = tmp_path / "a picture without suffix"
    path.write_bytes(encode(Image.fromarray(array), kind))
    for source in (path, str(path), path.read_bytes()):
        image = read_image(source)
        assert image.mode == ("L" if len(shape) == 2 else "RGB")
        np.testing.assert_array_equal(np.asarray(image), array)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "JPEG2000", "ICO"])
def test_other_formats_are_read_as_pillow_reads_them(kind):
    data = encode(Image.fromarray(noise(16, 16, 3)), kind)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = np.repeat(np.repeat(noise(2, 3, 3), 8, 0), 8, 1)
    data = encode(Image.fromarray(array), kind, exif=exif)
    upright = read_image(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright.size == ((24, 16) if orientation < 5 else (16, 24))
    np.testing.assert_array_equal(np.asarray(upright), np.asarray(expected.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(read_image(upright)), np.asarray(upright))


def test_damaged_exif_counts_as_upright():
    array = noise(4, 6)
    data = encode(Image.fromarray(array), "PNG", exif=b"Exif\0\0no tags at all")
    np.testing.assert_array_equal(pixels(data), array)


def test_one_bit_becomes_black_and_white_grey():
    array = noise(4, 9) > 127
    image = read_image(encode(Image.fromarray(array), "PNG"))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), array * np.uint8(255))


def test_palette_becomes_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image, "PNG")).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_alpha_is_composited_onto_white():
    array = np.array([[[0, 0, 0, 0], [10, 20, 30, 255], [0, 100, 255, 128]]], np.uint8)
    expected = [[[255, 255, 255], [10, 20, 30], [127, 177, 255]]]
    assert pixels(encode(Image.fromarray(array), "PNG")).tolist() == expected
    assert pixels(array).tolist() == expected


def test_grey_with_alpha_stays_grey():
    image = Image.new("LA", (3, 1))
    for x, value in enumerate([(0, 0), (77, 255), (0, 128)]):
        image.putpixel((x, 0), value)
    for source in (image, encode(image, "PNG")):
        assert read_image(source).mode == "L"
        assert pixels(source).tolist() == [[255, 77, 127]]


def test_transparent_palette_entry_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    expected = [[[255, 255, 255], [200, 100, 50]]]
    assert pixels(encode(image, "PNG", transparency=0)).tolist() == expected
    assert pixels(encode(image, "PNG", transparency=b"\x00\xff")).tolist() == expected
    assert pixels(encode(image, "GIF", transparency=0)).tolist() == expected
    assert pixels(image.convert("PA")).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_transparent_grey_value_becomes_white(depth):
    rows = {1: b"\0\x40", 8: b"\0\x00\xff", 16: b"\0\0\0\xff\xff"}[depth]  # a black and a white pixel
    data = png(2, 1, depth, 0, rows, tRNS=b"\0\0")
    image = read_image(data)
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[255, 255]]
    assert pixels(png(2, 1, depth, 0, rows)).tolist() == [[0, 255]]


def test_transparent_colour_becomes_white():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert pixels(encode(image, "PNG", transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_colour_of_16_bits_is_what_pillow_gives():
    data = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0x0102, 0x8000, 0xFFFF, 0, 0x1FFF, 257))
    assert pixels(data).tolist() == [[[1, 128, 255], [0, 31, 1]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_divided_by_257_and_rounded(kind):
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    image = read_image(encode(Image.fromarray(values), kind))
    assert image.mode == "L"
    assert np.asarray(image).tolist() == np.rint(values / 257).tolist()


def test_big_endian_grey_of_16_bits_is_read():
    values = np.array([[0, 514, 65535]], ">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert pixels(image).tolist() == [[0, 2, 255]]


def test_integers_count_as_16_bits():
    assert pixels(Image.fromarray(np.array([[0, 257, 65535]], np.int32))).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_of_unknown_range_are_refused(value):
    with pytest.raises(DataError, match=f"scan.tif holds values from .*{value}"):
        read_image(Image.fromarray(np.array([[5, value]], np.int32)), "scan.tif")


def test_floats_are_refused(tmp_path):
    path = tmp_path / "depth.tif"
    Image.fromarray(np.zeros((2, 2), np.float32)).save(path)
    with pytest.raises(DataError, match=r"depth\.tif holds floating-point numbers; save it with 8 or 16 bits"):
        read_image(path)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_other_colour_spaces_become_rgb(mode):
    image = Image.fromarray(noise(4, 4, 3 if mode in ("YCbCr", "LAB", "HSV") else 4))
    image = Image.frombytes(mode, (4, 4), image.tobytes())
    assert read_image(image).mode == "RGB"
    np.testing.assert_array_equal(pixels(image), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_is_read():
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert b"\xff\xee\x00\x0eAdobe" in data  # which means, as Photoshop has it, that inks are stored inverted
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "CMYK"
    assert np.abs(pixels(data).astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_an_animation_gives_its_first_frame(kind):
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


def test_a_pillow_image_is_not_changed():
    image = Image.fromarray(noise(3, 3))
    image.info["exif"] = b"something"
    read_image(image).putpixel((0, 0), 255 - image.getpixel((0, 0)))
    np.testing.assert_array_equal(np.asarray(image), noise(3, 3))
    assert image.info == {"exif": b"something"}


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_arrays_keep_every_pixel(shape):
    array = noise(*shape)
    np.testing.assert_array_equal(pixels(array), array.reshape(pixels(array).shape))
    np.testing.assert_array_equal(pixels(array[::-1, ::2]), array[::-1, ::2].reshape(pixels(array[:, ::2]).shape))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), bool),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 5, 6), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_shape_and_dtype(array):
    with pytest.raises(DataError, match=re.escape(f"shape {array.shape} and dtype {array.dtype};")):
        read_image(array)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "PPM", "GIF", "WEBP", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, kind, part):
    data = encode(Image.fromarray(noise(64, 64, 3)), kind)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=r"photo\.jpg is not an image that can be read: it ") as caught:
        read_image(path)
    if kind in ("JPEG", "PNG", "BMP", "PPM"):
        assert str(caught.value) == f"{path} is not an image that can be read: it ends too early (truncated)"


def test_damaged_bytes_are_refused():
    data = bytearray(encode(Image.fromarray(noise(32, 32, 3)), "PNG"))
    data[60:90] = bytes(30)
    with pytest.raises(DataError, match=r"the image is not an image that can be read: it "):
        read_image(bytes(data))


def test_any_damage_gives_an_image_or_a_data_error():
    generator = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"):
        good = encode(Image.fromarray(noise(16, 16, 3)), kind)
        for _ in range(60):
            data = bytearray(good)
            for place in generator.integers(0, len(data), 4):
                data[place] = generator.integers(0, 256)
            with contextlib.suppress(DataError):
                assert read_image(bytes(data)).mode in ("L", "RGB")


@pytest.mark.parametrize("content", [b"Not an image, but a text file.", b"\x00" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"notes\.png is not an image that can be read: it is not in an image format"):
        read_image(path)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.heic", "photo.txt"])
def test_a_file_is_what_its_content_is(tmp_path, name):
    (tmp_path / name).write_bytes(encode(Image.fromarray(noise(4, 6)), "PNG"))
    np.testing.assert_array_equal(pixels(tmp_path / name), noise(4, 6))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_shape_alone_is_that_of_the_image(tmp_path, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (6, 4)).convert("I" if mode == "I;16" else mode)
    path = tmp_path / "photo.png"
    image.convert(mode).save(path, exif=exif)
    upright = np.atleast_3d(pixels(path))
    assert read_shape(path) == upright.shape == ((4, 6) if orientation == 1 else (6, 4)) + upright.shape[2:]


def test_a_shape_is_read_from_bytes_too():
    data = encode(Image.fromarray(noise(40, 30, 3)), "JPEG")
    assert read_shape(data) == (40, 30, 3)
    with pytest.raises(DataError, match=r"^row 3 is not an image that can be read: "):
        read_shape(data[:10], "row 3")


def smooth(rows: int, columns: int) -> Image.Image:
    return Image.fromarray(noise(6, 8, 3)).resize((columns, rows), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((1023, 1500), 512, (512, 750)),
        ((1022, 1500), 512, (1022, 1500)),
        ((1022, 1500), 511, (511, 750)),
        ((817, 830), 100, (103, 104)),
        ((2500, 2100), 512, (625, 525)),
        ((64, 48), 6, (8, 6)),
        ((1100, 1100), None, (1100, 1100)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_leaves_enough(size, at_least, expected):
    data = encode(smooth(*size), "JPEG", quality=60)
    image = read_image(data, at_least=at_least)
    assert (image.height, image.width) == expected
    assert read_shape(data)[:2] == size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_smaller_reading_is_the_whole_image_upright(orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(160, 224).convert(mode), "JPEG", exif=exif, quality=95)
    whole, half = read_image(data), read_image(data, at_least=80)
    assert whole.mode == half.mode
    assert half.size == (whole.width // 2, whole.height // 2)
    difference = np.asarray(half).astype(float) - np.asarray(whole.resize(half.size, Image.Resampling.BOX))
    assert np.abs(difference).max() < 12


def test_nothing_but_a_jpeg_file_is_read_smaller():
    for kind in ("PNG", "WEBP", "TIFF"):
        assert read_image(encode(smooth(160, 224), kind), at_least=10).size == (224, 160)
    opened = Image.open(io.BytesIO(encode(smooth(160, 224), "JPEG")))
    assert read_image(opened, at_least=10).size == opened.size == (224, 160)


def test_a_truncated_jpeg_is_found_at_any_size():
    data = encode(Image.fromarray(noise(64, 64, 3)), "JPEG")
    with pytest.raises(DataError, match="it ends too early"):
        read_image(data[: len(data) // 2], at_least=8)


def test_a_shape_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "photo.jpg"
    with pytest.raises(DataError, match=r"photo\.jpg is not an image that can be read: "):
        read_shape(path)
    path.write_text("Not an image, but a text file.", encoding="utf-8")
    with pytest.raises(DataError, match=r"photo\.jpg is not an image that can be read: it is not in an image format"):
        read_shape(path)


def test_empty_missing_and_folder_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty\.jpg is not an image that can be read: it is empty$"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(DataError, match=r"the image is not an image that can be read: it is empty$"):
        read_image(b"")
    with pytest.raises(DataError, match=r"gone\.jpg does not exist$"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"cannot be opened: it is a folder$"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="cannot be opened: "):
        read_image(tmp_path / ("x" * 5000))


def test_decompression_bombs_are_refused():
    bomb = png(20000, 20000, 8, 0, b"")
    with pytest.raises(DataError, match=r"it has more than 178,956,970 pixels, as a decompression bomb would$"):
        read_image(bomb)


def test_large_images_and_odd_metadata_do_not_warn(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    data = encode(Image.fromarray(noise(5, 6)), "PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_image(data).size == (6, 5)
    assert caught == []


def test_warning_filters_survive_many_threads():
    before = list(warnings.filters)
    data = encode(Image.fromarray(noise(32, 32, 3)), "PNG")
    threads = [threading.Thread(target=lambda: [read_image(data) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_the_caller_may_name_the_image():
    with pytest.raises(DataError, match=r"^row 3 is not an image"):
        read_image(b"nonsense", "row 3")


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    for name in ("b/2.PNG", "a/1.jpg", "c.tiff", "notes.txt", ".hidden.png", ".cache/x.png", "a/[1].png", "plain"):
        path = tmp_path / "my photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "my photos")
    return Path()


def names(*paths: str | Path) -> list[str]:
    return [path.as_posix() for path in list_images(paths)]


def test_folders_are_listed_recursively_and_sorted(photos):
    assert names(".") == ["a/1.jpg", "a/[1].png", "b/2.PNG", "c.tiff"]
    assert names(Path("b"), "a") == ["b/2.PNG", "a/1.jpg", "a/[1].png"]


def test_files_are_taken_as_given_and_once(photos):
    assert names("notes.txt", "plain", ".hidden.png", "c.tiff", "plain") == [
        "notes.txt",
        "plain",
        ".hidden.png",
        "c.tiff",
    ]


def test_patterns_give_image_files(photos):
    assert names("*") == ["c.tiff"]
    assert names("**") == ["a/1.jpg", "a/[1].png", "b/2.PNG", "c.tiff"]
    assert names("**/*.jpg", "?/2.*") == ["a/1.jpg", "b/2.PNG"]


def test_an_existing_path_is_no_pattern(photos):
    assert names("a/[1].png") == ["a/[1].png"]
    assert names("a/[1].jpg") == ["a/1.jpg"]


def test_a_linked_folder_is_followed_and_a_loop_ends(photos, tmp_path):
    try:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "z.png").touch()
        Path("linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        Path("a/loop").symlink_to(tmp_path / "my photos", target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    assert [name for name in names(".") if "loop" not in name] == names("a/1.jpg", "a/[1].png", "b", "c.tiff", "linked")
    assert len(names(".")) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["gone.jpg"], r"^gone\.jpg does not exist; name an image file, a folder or a pattern"),
        (["c.tiff", "gone"], r"^gone does not exist"),
        (["*.webp"], r"^No image file matches \*\.webp"),
        (["empty"], r"^There is no image file in empty; it is searched for .*\.avif .*\.webp$"),
        ([], r"^No image given"),
        (["x" * 5000], "does not exist"),
    ],
)
def test_paths_without_images_are_refused(photos, given, message):
    Path("empty").mkdir()
    with pytest.raises(ConfigError, match=message):
        list_images(given)


def test_suffixes_are_those_pillow_knows():
    Image.init()
    assert IMAGE_SUFFIXES - {".heic", ".heif"} <= set(Image.registered_extensions())
