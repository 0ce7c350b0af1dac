import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from vitrail.errors import DataError
from vitrail.figures import draw_overlay, overlay, paint_overlay
from vitrail.figures.overlay import heat_range

LUMA = [0.2126, 0.7152, 0.0722]
RAMP = np.linspace(0, 1, 40, dtype=np.float32)[None].repeat(30, axis=0)


def plain(rows: int, columns: int, value: int = 128, channels: int = 3) -> np.ndarray:
    return np.full((rows, columns, channels), value, np.uint8)


def test_the_range_is_that_of_what_is_seen():
    heat = np.array([[np.nan, 2.0], [4.0, 3.0]])
    assert heat_range(heat, signed=False) == pytest.approx((2, 4), abs=0.02)
    assert heat_range(-heat, signed=True) == pytest.approx((-4, 4), abs=0.02)
    assert heat_range(np.full((2, 2), np.nan), signed=False) == (0, 1)


def test_one_outstanding_pixel_does_not_hide_the_others():
    heat = np.linspace(0, 1, 10_000).reshape(100, 100)
    heat[5, 5] = 1000
    assert heat_range(heat, signed=False)[1] == pytest.approx(1, abs=0.01)
    assert heat_range(heat, signed=True)[1] == pytest.approx(1, abs=0.01)
    alone = np.zeros((100, 100))
    alone[5, 5] = 3
    assert heat_range(alone, signed=False) == (0, 3)
    assert heat_range(alone, signed=True) == (-3, 3)


def test_where_all_is_nearly_even_nothing_stands_out():
    even = 0.0625 + 0.0005 * RAMP
    image = plain(30, 40)
    nothing = paint_overlay(image, np.zeros_like(RAMP), signed=False)
    assert np.abs(paint_overlay(image, even, signed=False).astype(int) - nothing).max() < 32
    assert np.abs(paint_overlay(image, RAMP, signed=False).astype(int) - nothing).max() > 80


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    signed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_picture_has_the_images_own_size(rows, columns, channels, signed, seed):
    numbers = np.random.default_rng(seed)
    image = numbers.integers(0, 256, (rows, columns, channels), dtype=np.uint8)
    heat = numbers.standard_normal((rows, columns)).astype(np.float32)
    heat[heat < -1.5] = np.nan
    before = image.copy()
    painted = paint_overlay(image, heat, signed=signed)
    assert (painted.shape, painted.dtype) == ((rows, columns, 3), np.uint8)
    np.testing.assert_array_equal(image, before)


def test_the_image_shows_through_where_there_is_no_evidence():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 1), dtype=np.uint8)
    painted = paint_overlay(image, np.zeros((30, 40)), signed=True)
    assert (painted == painted[..., :1]).all()  # as grey as it was
    assert np.corrcoef(painted[..., 0].ravel(), image.ravel())[0, 1] > 0.999
    coloured = paint_overlay(image.repeat(3, axis=2), np.zeros((30, 40)), signed=True)
    np.testing.assert_array_equal(coloured, painted)
    red = plain(2, 2) * np.array([1, 0, 0], np.uint8)
    painted = paint_overlay(red, np.zeros((2, 2)), signed=False)[0, 0].astype(int)
    assert 20 < painted[0] - painted[1] < 64  # of 128
    assert np.ptp(paint_overlay(red, np.zeros((2, 2)), signed=True)[0, 0]) < 2


@pytest.mark.parametrize("color", ["#0072B2", "#0000FF", "#D55E00", "#FFA500", "#87CEEB"])
def test_signed_evidence_is_seen_on_an_image_of_its_own_colour(color):
    image = np.full((1, 5, 3), (255 * np.array(to_rgb(color))).round(), np.uint8)
    painted = paint_overlay(image, np.array([[-1.0, -0.3, 0.0, 0.3, 1.0]]), signed=True)[0].astype(int)
    blueness = painted[:, 2] - painted[:, 0]
    assert (np.diff(blueness) < -20).all()
    assert abs(blueness[2]) < 3


@pytest.mark.parametrize("value", [0, 128, 255])
def test_evidence_for_is_orange_and_evidence_against_is_blue(value):
    heat = np.array([[-1.0, 0.0, 1.0]])
    against, none, favour = paint_overlay(plain(1, 3, value), heat, signed=True)[0].astype(int)
    assert against[2] - against[0] > 80
    assert favour[0] - favour[2] > 80
    assert np.ptp(none) < 3


def test_strengths_differ_in_brightness_and_not_in_hue_alone():
    unsigned = overlay._colormap(signed=False)(np.linspace(0, 1, 100))[:, :3] @ LUMA
    assert (np.diff(unsigned) > 0).all()
    half = overlay._colormap(signed=True)(np.linspace(0.5, 1, 100))[:, :3] @ LUMA
    assert (np.diff(half[1:]) < 0).all()


def test_what_the_model_did_not_see_is_faded_and_framed():
    heat = np.full((600, 300), np.nan, np.float32)  # more rows than are painted at a time
    heat[150:450] = 0
    image = plain(600, 300, 250)
    painted = paint_overlay(image, heat, signed=False).astype(int)
    whole = paint_overlay(image, np.zeros((600, 300)), signed=False).astype(int)
    np.testing.assert_array_equal(painted[155:445, 5:-5], whole[155:445, 5:-5])
    assert (painted[:150] < whole[:150] - 30).all()
    for line in (painted[150], painted[449], painted[150:450, 0], painted[150:450, -1]):
        assert (line < whole[0, 0] - 60).all()  # the dark line of the frame
    assert (painted[151, 1:-1] > painted[150, 1:-1] + 60).all()  # beside the bright one


def test_strips_of_rows_fit_together(monkeypatch):
    numbers = np.random.default_rng(0)
    image = numbers.integers(0, 256, (70, 30, 3), dtype=np.uint8)
    heat = numbers.standard_normal((70, 30))
    whole = paint_overlay(image, heat, signed=True)
    monkeypatch.setattr(overlay, "_STRIP", 16)
    np.testing.assert_array_equal(paint_overlay(image, heat, signed=True), whole)


@pytest.mark.parametrize(
    ("image", "heat"),
    [
        (plain(4, 4), np.zeros((4, 5))),
        (plain(4, 4, channels=4), np.zeros((4, 4))),
        (plain(4, 4).astype(float), np.zeros((4, 4))),
        (plain(4, 4)[..., 0], np.zeros((4, 4))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(image, heat):
    with pytest.raises(DataError, match=r"do not fit; give uint8 \(rows, columns, 1 or 3\) and \(rows, columns\)"):
        paint_overlay(image, heat, signed=False)
    with pytest.raises(DataError, match="do not fit"):
        draw_overlay(image, np.zeros((2, 2)), heat, (0, 0, 1, 1), signed=False, title="")


def test_names_of_all_kinds_are_drawn(hostile_names):
    for title in hostile_names:
        figure = draw_overlay(
            plain(3, 4), RAMP[:3, :4], RAMP[:3, :4], (0, 0, 1, 1), signed=False, title=title, subtitle=title
        )
        width = figure.get_figwidth()
        figure.canvas.draw()
        for text in figure.texts:
            assert text.get_window_extent().x1 <= width * figure.dpi


@pytest.mark.parametrize("shape", [(30, 40), (400, 20), (20, 400)])
@pytest.mark.parametrize("signed", [False, True])
def test_three_panels_and_a_bar(shape, signed):
    heat = np.random.default_rng(0).standard_normal(shape)
    figure = draw_overlay(plain(*shape), heat[:3, :4], heat, (0, 0, 1, 1), signed=signed, title="cat")
    names = [axes.get_title() for axes in figure.axes]
    assert [name for name in names if name] == ["image", "map, 3x4", "map over the image"]
    figure.canvas.draw()
    boxes = np.array([axes.get_position().extents for axes in figure.axes])
    assert boxes.min() >= 0
    assert boxes.max() <= 1


@pytest.mark.parametrize("shape", [(100, 2000), (200, 2000), (100, 180), (40, 100), (300, 300), (2000, 100)])
@pytest.mark.parametrize("signed", [False, True])
def test_the_bars_labels_lie_apart_and_panels_are_full(shape, signed):
    heat = 0.0123 * np.random.default_rng(0).standard_normal(shape)
    figure = draw_overlay(
        plain(*shape), heat, heat, (0, 0, 1, 1), signed=signed, title="cat", map_title="map, 7x7 windows"
    )
    figure.canvas.draw()
    panels, bar = [figure.axes[place] for place in (0, 1, 3)], figure.axes[2]
    assert figure.axes[1].get_title() == "map, 7x7 windows"
    texts = [
        label.get_window_extent() for label in (*bar.get_xticklabels(), *bar.get_yticklabels()) if label.get_text()
    ]
    assert len(texts) >= 2
    for one, other in itertools.combinations(texts, 2):
        assert not one.overlaps(other)
    heights = sum(axes.get_window_extent().height for axes in panels) / (3 if shape[1] <= 2 * shape[0] else 1)
    room = figure.get_figheight() * figure.dpi - heights
    assert room < 1.9 * figure.dpi  # headings, margins and the bar


def test_small_values_are_written_out():
    figure = draw_overlay(plain(4, 4), RAMP[:2, :2], RAMP[:4, :4] * 1e-4, (0, 0, 1, 1), signed=True, title="")
    labels = {label.get_text() for label in figure.axes[2].get_yticklabels()}
    assert {"0", "2e\N{MINUS SIGN}06", "\N{MINUS SIGN}2e\N{MINUS SIGN}06"} <= labels


def test_cells_lie_where_they_are_in_the_image():
    heat = np.zeros((20, 40))
    cells = np.zeros((2, 2))
    figure = draw_overlay(plain(20, 40), cells, heat, (0.25, 0.0, 0.75, 1.0), signed=False, title="")
    (shown,) = figure.axes[1].images
    assert shown.get_extent() == [10, 30, 20, 0]
    assert (figure.axes[1].get_xlim(), figure.axes[1].get_ylim()) == ((0, 40), (20, 0))
