import numpy as np
import pytest
from matplotlib.figure import Figure

from vitrail.data.dataset import ImageSet, number_names
from vitrail.evaluation import multilabel_metrics, sigmoid
from vitrail.reporting import multilabel_figures
from vitrail.reporting.multilabel_figures import draw_multilabel_figures, label_sets, label_titles, rarest_labels
from vitrail.reporting.run_figures import draw_data_figures
from vitrail.runs import RunDirectory

CLASSES = ("sea", "sky", "sun")
LABELS = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1]], np.int64)
LOGITS = np.array([[3.0, 1.0, -1.0], [-2.0, -1.0, 4.0], [2.0, 1.0, -3.0], [-1.0, 2.0, 3.0]])


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create("{}", "{}")
    return directory


@pytest.fixture
def drawn(monkeypatch) -> dict[str, Figure]:
    """The figures by the names of their files; none is written."""
    kept: dict[str, Figure] = {}
    monkeypatch.setattr("vitrail.figures.save_figure", lambda figure, path: kept.update({path.name: figure}))
    return kept


def images(labels: np.ndarray) -> ImageSet:
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(8, axis=1).repeat(8, axis=2)
    return ImageSet(pixels, labels, number_names("test", len(labels)))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_labels_by_name():
    assert label_sets(LABELS, CLASSES) == [["sea", "sky"], [], ["sea"], ["sky", "sun"]]
    assert label_titles(LABELS, CLASSES) == ["sea, sky", "no label", "sea", "sky, sun"]


def test_the_rarest_label_stands_for_an_image():
    assert rarest_labels(LABELS).tolist() == [0, 3, 0, 2]
    assert rarest_labels(np.array([[1, 1, 0]] * 3 + [[1, 0, 0]])).tolist() == [1, 1, 1, 0]


def draw(run, logits=LOGITS):
    metrics = multilabel_metrics(logits, LABELS, CLASSES, bootstrap_samples=5)
    draw_multilabel_figures(run, images(LABELS), sigmoid(logits), CLASSES, metrics)


def test_test_images_with_their_labels_and_predictions(run, drawn):
    draw(run)
    assert set(drawn) == {"predictions.png", "mistakes.png", "average_precision.png"}
    assert titles(drawn["predictions.png"]) == [
        "sea, sky / sea, sky\n✓ 73 %",
        "no label / sun\n✗ 73 %",
        "sea / sea, sky\n✗ 73 %",
        "sky, sun / sky, sun\n✓ 73 %",
    ]
    surest_first = ["no label / sun\n✗ 73 %", "sea / sea, sky\n✗ 73 %"]
    assert titles(drawn["mistakes.png"]) == surest_first
    assert drawn["mistakes.png"].texts[0].get_text() == "Labels / prediction: all 2 mistakes"


def test_no_mistakes_no_figure_of_them(run, drawn):
    draw(run, 2.0 * LABELS - 1)
    assert set(drawn) == {"predictions.png", "average_precision.png"}


def test_no_label_anywhere_no_figure_of_precision(run, drawn):
    metrics = multilabel_metrics(-np.ones((4, 3)), 0 * LABELS, CLASSES, bootstrap_samples=5)
    draw_multilabel_figures(run, images(0 * LABELS), np.zeros((4, 3)), CLASSES, metrics)
    assert set(drawn) == {"predictions.png"}


def test_many_mistakes_are_counted(run, drawn, monkeypatch):
    monkeypatch.setattr(multilabel_figures, "NUM_SHOWN", 1)
    draw(run)
    assert drawn["mistakes.png"].texts[0].get_text() == "Labels / prediction: the 1 surest of 2 mistakes"


def test_sample_images_go_round_the_labels(run, drawn):
    draw_data_figures(run, images(LABELS), CLASSES)
    assert titles(drawn["samples.png"]) == ["sea, sky", "sky, sun", "no label", "sea"]
