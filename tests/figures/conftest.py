"""Small images for all figures."""

import numpy as np
import pytest


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
