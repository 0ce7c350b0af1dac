"""Norms of tokens."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_token_norms, style


def _norms(num_layers: int, outlier: float = 1.0) -> np.ndarray:
    medians = 10.0 + np.arange(num_layers)
    norms = medians[:, None] * [0.6, 0.85, 1, 1.15, 1.5]
    norms[num_layers // 2 :, 4] *= outlier
    return norms


def _legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_shows_the_percentiles(drawn) -> None:
    norms = _norms(3)
    figure = draw_token_norms(norms, np.zeros(3))
    drawn(figure)
    (axes,) = figure.axes
    (median,) = axes.lines
    np.testing.assert_array_equal(np.asarray(median.get_xydata()), np.stack([np.arange(3), norms[:, 2]], axis=1))
    for area, (low, high) in zip(axes.collections, ((0, 4), (1, 3)), strict=True):
        heights = area.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (norms[:, low].min(), norms[:, high].max())
    assert _legend(figure) == ["98 % of patches", "half of patches", "median patch"]
    assert axes.get_title("left") == "Token norms by layer"
    assert axes.get_xlabel() == "layer"
    assert axes.get_yscale() == "linear"


def test_shows_outliers_and_prefix_tokens(drawn) -> None:
    prefix = np.arange(8.0).reshape(4, 2) + 5
    figure = draw_token_norms(_norms(4, 10), [0, 0, 0.02, 0.01], np.full(4, 30.0), prefix)
    texts = {text.get_text() for text in drawn(figure)}
    upper, lower = figure.axes
    assert [bar.get_height() for bar in lower.patches] == [0, 0, 0.02, 0.01]
    assert upper.get_yscale() == "log"
    assert {"10", "50", "100"} <= texts
    (limit,) = [line for line in upper.lines if line.get_color() == style.WRONG]
    assert np.asarray(limit.get_ydata()).tolist() == [30] * 4
    (marks,) = [line for line in upper.lines if line.get_color() == style.INK]
    assert np.asarray(marks.get_xydata()).tolist() == [
        [layer, 5 + 2 * layer + one] for layer in range(4) for one in (0, 1)
    ]
    assert _legend(figure)[3:] == ["outliers lie above", "class token, registers"]
    assert (upper.get_xlabel(), lower.get_xlabel(), lower.get_ylabel()) == ("", "layer", "outliers")


@pytest.mark.parametrize(("num_layers", "share"), [(1, 0.0), (1, 1.0), (2, 0.0003), (48, 0.0), (48, 0.02)])
def test_any_model_can_be_drawn(num_layers: int, share: float, drawn) -> None:
    figure = draw_token_norms(
        _norms(num_layers, 30), np.full(num_layers, share), np.full(num_layers, 40.0), np.ones((num_layers, 5))
    )
    drawn(figure)
    assert len(figure.axes) == 1 + (share > 0)
    assert figure.get_figwidth() < 8


def test_tokens_without_length_and_no_prefix(drawn) -> None:
    drawn(draw_token_norms(np.zeros((2, 5)), [0, 0], None, np.zeros((2, 0))))


@pytest.mark.parametrize(
    ("norms", "outliers", "threshold", "prefix", "message"),
    [
        (np.zeros((0, 5)), [], None, None, "do not fit"),
        (np.zeros((2, 4)), [0, 0], None, None, r"\(2, 4\)"),
        (np.zeros((2, 5)), [0], None, None, "do not fit"),
        (np.zeros((2, 5)), 0.5, None, None, "do not fit"),
        (np.zeros((2, 5)), [0, 0], [1.0], None, "do not fit"),
        (np.zeros((2, 5)), [0, 0], None, [1.0, 2.0], "do not fit"),
        (np.full((2, 5), -1.0), [0, 0], None, None, "below 0"),
        (np.full((2, 5), np.nan), [0, 0], None, None, "below 0"),
        (np.zeros((2, 5)), [0, 2], None, None, "outside 0 to 1"),
    ],
)
def test_refuses_what_does_not_fit(norms, outliers, threshold, prefix, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_token_norms(norms, outliers, threshold, prefix)
