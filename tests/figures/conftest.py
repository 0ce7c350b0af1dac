"""Small images for all figures."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def grey() -> np.ndarray:
    """Twelve grey images of 6 rows and 8 columns, all different."""
    return np.random.default_rng(0).integers(0, 256, size=(12, 6, 8, 1), dtype=np.uint8)


@pytest.fixture
def color() -> np.ndarray:
    """Three colour images of 10 rows and 10 columns."""
    return np.random.default_rng(1).integers(0, 256, size=(3, 10, 10, 3), dtype=np.uint8)


# Formulas and markup, scripts that the bundled font lacks, control characters, and a lone surrogate from a file name.
HOSTILE_NAMES = [
    "price in $ and $",
    r"$\frac{",
    "_leading_underscore_and^caret",
    "漢字の名前",
    "ภาษาไทย",
    "हिन्दी",
    "עברית",
    "Жук Österreich",
    "😀 \U0001fae8",
    "two\nlines\tand tab",
    "nul\x00byte",
    "broken \udcff name",
    "",
    "W" * 300,
    "漢" * 300,
]


@pytest.fixture
def hostile_names() -> list[str]:
    """Class names that break careless drawing."""
    return list(HOSTILE_NAMES)


@pytest.fixture
def drawn() -> Callable[[Figure], list[Text]]:
    """Draws a figure, and gives its texts, none of which is cut off or read as a formula."""

    def draw(figure: Figure) -> list[Text]:
        FigureCanvasAgg(figure).draw()
        texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
        for axes in figure.axes:
            texts += [*axes.texts, axes.title, axes._left_title]  # pyright: ignore[reportAttributeAccessIssue]
            if axes.axison:
                texts += [axes.xaxis.label, axes.yaxis.label]
                for axis, index in ((axes.xaxis, 0), (axes.yaxis, 1)):
                    low, high = sorted(axis.get_view_interval())
                    texts += [text for text in axis.get_ticklabels() if low <= text.get_position()[index] <= high]
        texts = [text for text in texts if text.get_visible() and text.get_text()]
        paper = figure.bbox
        for text in texts:
            box = text.get_window_extent()
            assert paper.x0 <= box.x0 < box.x1 <= paper.x1, text
            assert paper.y0 <= box.y0 < box.y1 <= paper.y1, text
        return texts

    return draw
