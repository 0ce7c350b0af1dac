from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail import figures
from vitrail.data.images import read_image
from vitrail.data.preprocess import Preprocess, prepare, visible
from vitrail.data.sources import open_dataset
from vitrail.errors import ConfigError, DataError
from vitrail.reporting.preview import FITS, write_preview


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, size in (("ant", (40, 20)), ("bee", (20, 40))):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{label}{index}.png")
    return tmp_path / "pictures"


def wanted(fit: str, **settings: object) -> Preprocess:
    return Preprocess.model_validate({"image_size": (16, 16), "channels": 3, "fit": fit, **settings})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the figures were drawn of."""
    calls: list[tuple] = []
    real = figures.draw_preview
    monkeypatch.setattr(figures, "draw_preview", lambda *given: calls.append(given) or real(*given), raising=False)
    return calls


@pytest.mark.parametrize("fit", FITS)
def test_what_the_model_will_see_is_drawn(pictures: Path, tmp_path: Path, drawn: list[tuple], fit: str) -> None:
    path, unread = write_preview(open_dataset(str(pictures)), wanted(fit), 4, tmp_path / "preview.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
    assert unread == ()
    originals, titles, seen, boxes = drawn[0]
    assert {name[:3] for name in titles} == {"ant", "bee"}
    assert len(titles) == 4
    for index, title in enumerate(titles):
        image = read_image(pictures / title[:3] / title)
        np.testing.assert_array_equal(originals[index], np.asarray(image))
        expected = visible(prepare(image, wanted(fit))[None])[0]
        np.testing.assert_array_equal(seen[f"{fit}, 16x16"][index], expected)
        cropped = (0.0, 0.25, 1.0, 0.75) if title[:3] == "ant" else (0.25, 0.0, 0.75, 1.0)
        assert boxes[index] == (cropped if fit == "crop" else (0.0, 0.0, 1.0, 1.0))


def test_every_fit_side_by_side(pictures: Path, tmp_path: Path, drawn: list[tuple]) -> None:
    write_preview(open_dataset(str(pictures)), wanted("pad"), 3, tmp_path / "all.png", FITS)
    assert [*drawn[0][2]] == ["pad, 16x16", "crop, 16x16", "squash, 16x16", "native, 16x16"]
    assert drawn[0][3] is None


def test_the_middle_that_is_kept_is_marked(pictures: Path, tmp_path: Path, drawn: list[tuple]) -> None:
    write_preview(open_dataset(str(pictures)), wanted("squash", crop_rate=0.5), 1, tmp_path / "a.png")
    assert drawn[0][3] == [(0.25, 0.25, 0.75, 0.75)]


def test_images_in_memory_are_drawn_too(tmp_path: Path, drawn: list[tuple]) -> None:
    write_preview(open_dataset("digits"), wanted("pad", channels=1), 5, tmp_path / "digits.png")
    assert [original.shape for original in drawn[0][0]] == [(8, 8, 1)] * 5


def test_what_cannot_be_read_is_named(pictures: Path, tmp_path: Path) -> None:
    for path in (pictures / "ant").iterdir():
        path.write_bytes(b"damaged")
    dataset = open_dataset(str(pictures))
    _, unread = write_preview(dataset, wanted("pad"), 100, tmp_path / "preview.png")
    assert sorted(unread) == [f"ant/ant{index}.png" for index in range(6)]
    for path in (pictures / "bee").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"^None of 12 images of pictures can be read; `vitrail audit` says why$"):
        write_preview(dataset, wanted("pad"), 100, tmp_path / "preview.png")
    with pytest.raises(ConfigError, match=r"^preview=0 is not possible; ask for 1 image or more$"):
        write_preview(dataset, wanted("pad"), 0, tmp_path / "preview.png")
