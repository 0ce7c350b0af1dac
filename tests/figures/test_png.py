"""Figures as files."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vitrail.errors import CheckpointError, ConfigError
from vitrail.figures import draw_samples, save_figure


def test_written_and_readable(tmp_path: Path) -> None:
    path = save_figure(Figure(figsize=(2, 1)), tmp_path / "new folder" / "figure.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (300, 150)
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert "Software" not in image.info
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


def test_same_figure_gives_same_bytes(tmp_path: Path, grey: np.ndarray) -> None:
    first = save_figure(draw_samples(grey, ["a"] * 12), tmp_path / "first.png")
    second = save_figure(draw_samples(grey, ["a"] * 12), tmp_path / "second.png")
    assert first.read_bytes() == second.read_bytes()
    other = save_figure(draw_samples(grey[::-1], ["a"] * 12), tmp_path / "other.png")
    assert first.read_bytes() != other.read_bytes()


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail_halfway(self: Figure, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail_halfway)
    with pytest.raises(CheckpointError, match="No space left"):
        save_figure(Figure(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_replaces_the_old_file_as_a_whole(tmp_path: Path) -> None:
    path, reader = tmp_path / "figure.png", tmp_path / "reader"
    path.write_bytes(b"old")
    reader.hardlink_to(path)
    save_figure(Figure(figsize=(1, 1)), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert reader.read_bytes() == b"old"


def test_refuses_another_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'figure\.jpg' does not end in \.png"):
        save_figure(Figure(), tmp_path / "figure.jpg")


def test_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_figure(Figure(), tmp_path / "file" / "figure.png")
