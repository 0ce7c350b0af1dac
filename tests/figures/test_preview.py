import numpy as np
import pytest
from matplotlib.patches import Rectangle

from vitrail import figures
from vitrail.errors import DataError

ORIGINALS = [np.full((20, 30, 3), 90, np.uint8), np.full((40, 10, 1), 200, np.uint8)]
SEEN = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("ways", [1, 4])
@pytest.mark.parametrize("times", [1, 8])
def test_every_image_stands_beside_what_is_made_of_it(ways, times):
    names = [f"way {number}" for number in range(ways)]
    seen = {name: np.concatenate([SEEN] * times) for name in names}
    figure = figures.draw_preview(ORIGINALS * times, ["a.jpg", "b.jpg"] * times, seen)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a.jpg", *names, "b.jpg", *names] * times
    shapes = [axes.images[0].get_array().shape[:2] for axes in figure.axes[:: 1 + ways]]
    assert shapes == [(20, 30), (40, 10)] * times
    boxes = np.array([axes.get_position().extents for axes in figure.axes])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    for first in range(len(boxes)):  # none lies on another
        apart = (boxes[:, 0] >= boxes[first, 2]) | (boxes[:, 2] <= boxes[first, 0])
        apart |= (boxes[:, 1] >= boxes[first, 3]) | (boxes[:, 3] <= boxes[first, 1])
        apart[first] = True
        assert apart.all()


def test_the_part_that_is_used_is_marked():
    used = [(0.25, 0.0, 0.75, 1.0), (0.0, 0.0, 1.0, 1.0)]
    figure = figures.draw_preview(ORIGINALS, ["a", "b"], {"crop": SEEN}, used)
    marks = [[patch for patch in axes.patches if isinstance(patch, Rectangle)] for axes in figure.axes]
    assert list(map(len, marks)) == [1, 0, 0, 0]  # all of the second is used
    assert marks[0][0].get_bbox().extents.tolist() == [7.0, -0.5, 22.0, 19.5]


@pytest.mark.parametrize(
    ("originals", "titles", "seen"),
    [
        ([], [], {"pad": SEEN[:0]}),
        (ORIGINALS, ["a"], {"pad": SEEN}),
        (ORIGINALS, ["a", "b"], {}),
        (ORIGINALS[:1], ["a"], {"pad": SEEN}),
    ],
)
def test_numbers_that_differ_are_refused(originals, titles, seen):
    with pytest.raises(DataError, match="images to preview do not fit"):
        figures.draw_preview(originals, titles, seen)
