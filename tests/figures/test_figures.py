"""The package's table of names."""

import subprocess
import sys

import pytest

from vitrail import figures


def test_every_name_is_found() -> None:
    assert figures.__all__ == sorted(figures.__all__)
    assert sorted(figures._MODULES) == figures.__all__
    for name in figures.__all__:
        assert callable(getattr(figures, name))
        assert name in dir(figures)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="draw_nothing"):
        _ = figures.draw_nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_import_is_light_and_drawing_needs_no_pyplot() -> None:
    code = """if True:
        import sys
        from vitrail import figures
        assert "matplotlib" not in sys.modules
        figures.draw_confusion([[1]], ["a"])
        figures.draw_curves([0], [0], [0], [], [], [], None)
        figures.draw_samples, figures.draw_predictions, figures.save_figure
        assert "matplotlib" in sys.modules
        assert "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)
