"""What callers may give in several forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.api.inputs import optional_path, sources


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ()), ("a", ("a",)), (Path("a"), ("a",)), (["a", Path("b")], ("a", "b"))],
)
def test_data_in_every_form(given, expected):
    assert sources(given) == expected


def test_a_path_that_need_not_be():
    assert optional_path(None) is None
    assert optional_path("a") == optional_path(Path("a")) == Path("a")
