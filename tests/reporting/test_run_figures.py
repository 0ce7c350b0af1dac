import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from vitrail.checkpoint import ModelCard
from vitrail.data.dataset import ImageSet, number_names
from vitrail.data.preprocess import Preprocess
from vitrail.evaluation import classification_metrics
from vitrail.models.vit import ViTConfig
from vitrail.reporting import run_figures
from vitrail.reporting.run_figures import (
    Picture,
    draw_batch_figure,
    draw_calibration_figures,
    draw_data_figures,
    draw_result_figures,
    draw_training_figures,
    run_html,
)
from vitrail.runs import RunDirectory

CLASSES = ("cat", "dog", "<b>")


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


def images(labels: list[int]) -> ImageSet:
    """Images of one value each, which is their place."""
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(8, axis=1).repeat(8, axis=2)
    return ImageSet(pixels, np.array(labels, np.int64), number_names("test", len(labels)))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def places(figure: Figure) -> list[int]:
    """Which images a grid shows."""
    return [int(np.asarray(axes.images[0].get_array())[0, 0]) for axes in figure.axes]


def log(run: RunDirectory, *lines: dict[str, object] | str) -> None:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    run.metrics_path.write_text(text, encoding="utf-8")


def evaluation(epoch: int, accuracy: float, loss: float) -> dict[str, object]:
    return {"split": "validation", "epoch": epoch, "accuracy": accuracy, "loss": loss}


def logits(predicted: list[int], sureness: list[float]) -> np.ndarray:
    """Logits of three classes whose largest is that of the predicted one."""
    values = np.zeros((len(predicted), 3), np.float32)
    values[np.arange(len(predicted)), predicted] = sureness
    return values


# What is drawn


def test_a_batch_is_drawn_under_what_it_is_taken_for(run, drawn):
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(8, axis=1).repeat(8, axis=2)
    draw_batch_figure(run, pixels, np.array([0, 2, 1, 0]), CLASSES)
    assert titles(drawn["batch.png"]) == ["cat", "<b>", "dog", "cat"]
    assert places(drawn["batch.png"]) == [0, 1, 2, 3]
    mixed = np.array([[0.38, 0.62, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0]], np.float32)
    draw_batch_figure(run, pixels, mixed, CLASSES)
    assert titles(drawn["batch.png"]) == ["62% dog", "cat", "cat, <b>", ""]


def test_the_channel_of_padding_is_no_colour(run, drawn):
    pixels = np.full((2, 8, 8, 4), 255, np.uint8)
    draw_batch_figure(run, pixels, np.array([0, 1]), CLASSES)
    assert np.asarray(drawn["batch.png"].axes[0].images[0].get_array()).shape == (8, 8, 3)


def test_samples_go_round_the_classes(run, drawn, monkeypatch):
    monkeypatch.setattr(run_figures, "NUM_SHOWN", 7)
    draw_data_figures(run, images([0, 0, 0, 0, 1, 0, 2, 1, 0, 0]), CLASSES)
    figure = drawn["samples.png"]
    assert titles(figure) == ["cat", "dog", "<b>", "cat", "dog", "cat", "cat"]
    assert places(figure) == [0, 4, 6, 1, 7, 2, 3]


def test_forty_samples_at_most(run, drawn):
    draw_data_figures(run, images([0, 1] * 30), CLASSES)
    assert len(drawn["samples.png"].axes) == 40


def test_nothing_is_drawn_of_nothing(run, drawn):
    draw_training_figures(run)
    log(run, '{"step": 1, "epo', "[]")
    draw_training_figures(run)
    assert drawn == {}


def test_curves_show_what_was_logged(run, drawn):
    log(
        run,
        {"step": 5, "epoch": 0.5, "loss": 2.0, "accuracy": 0.25},
        {"step": 10, "epoch": 1.0, "loss": 1.0, "accuracy": 0.5},
        evaluation(1, 0.5, 0.9),
        '{"step": 15, "epoch": 1.5, "loss',  # torn by a crash
    )
    draw_training_figures(run)
    losses, accuracies = drawn["curves.png"].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in losses.get_lines()}
    assert lines["training"] == [[0.5, 2.0], [1.0, 1.0]]
    assert lines["validation"] == [[1.0, 0.9]]
    lines = {line.get_label(): line.get_xydata().tolist() for line in accuracies.get_lines()}
    assert lines["training"] == [[0.5, 0.25], [1.0, 0.5]]
    assert lines["validation"] == [[1.0, 0.5]]


@pytest.mark.parametrize(
    ("evaluations", "best"),
    [
        ([(1, 0.5, 1.0), (2, 0.75, 2.0), (3, 0.6, 0.5)], "best epoch 2: 75.00 %"),
        ([(1, 0.75, 1.0), (2, 0.75, 0.5), (3, 0.75, 0.75)], "best epoch 2: 75.00 %"),  # the lower loss decides
    ],
)
def test_the_best_epoch_is_the_one_that_training_keeps(run, drawn, evaluations, best):
    log(run, *(evaluation(*numbers) for numbers in evaluations))
    draw_training_figures(run)
    legend = drawn["curves.png"].axes[1].get_legend()
    assert [text.get_text() for text in legend.get_texts()][-1] == best


def test_curves_before_the_first_evaluation(run, drawn):
    log(run, {"step": 5, "epoch": 0.5, "loss": 2.0})  # of mixed images, which have no accuracy
    draw_training_figures(run)
    losses, accuracies = drawn["curves.png"].axes
    assert [line.get_label() for line in losses.get_lines()] == ["training"]
    assert list(accuracies.get_lines()) == []


def test_results_show_labels_and_predictions(run, drawn):
    shown, values = images([0, 1, 2]), logits([0, 2, 2], [1.0, 2.0, 3.0])
    draw_result_figures(run, shown, values, CLASSES, classification_metrics(values, shown.labels, CLASSES))
    assert titles(drawn["predictions.png"]) == ["cat / cat\n✓ 58 %", "dog / <b>\n✗ 79 %", "<b> / <b>\n✓ 91 %"]
    assert places(drawn["predictions.png"]) == [0, 1, 2]
    assert drawn["predictions.png"].get_suptitle() == "Label / prediction: 2 right of 3 shown"
    assert titles(drawn["mistakes.png"]) == ["dog / <b>\n✗ 79 %"]
    assert drawn["confusion.png"].axes[0].get_title(loc="left") == "Confusion matrix: 2 right of 3 images"


def test_the_surest_mistakes_come_first(run, drawn, monkeypatch):
    shown, values = images([0] * 5), logits([1, 0, 1, 2, 1], [1.0, 9.0, 3.0, 2.0, 0.5])
    metrics = classification_metrics(values, shown.labels, CLASSES)
    draw_result_figures(run, shown, values, CLASSES, metrics)
    assert places(drawn["mistakes.png"]) == [2, 3, 0, 4]
    assert drawn["mistakes.png"].get_suptitle() == "Label / prediction: all 4 mistakes, the surest first"
    monkeypatch.setattr(run_figures, "NUM_SHOWN", 2)
    draw_result_figures(run, shown, values, CLASSES, metrics)
    assert places(drawn["mistakes.png"]) == [2, 3]
    assert drawn["mistakes.png"].get_suptitle() == "Label / prediction: the 2 surest of 4 mistakes"


def test_no_mistakes_no_picture_of_them(run, drawn):
    shown, values = images([0, 1]), logits([0, 1], [1.0, 1.0])
    draw_result_figures(run, shown, values, CLASSES, classification_metrics(values, shown.labels, CLASSES))
    assert sorted(drawn) == ["confusion.png", "predictions.png"]


def test_figures_are_files(run):
    draw_data_figures(run, images([0, 1, 2]), CLASSES)
    log(run, evaluation(1, 0.5, 1.0))
    draw_training_figures(run)
    values = logits([0, 1, 1], [1.0, 1.0, 1.0])
    shown = images([0, 1, 2])
    draw_result_figures(run, shown, values, CLASSES, classification_metrics(values, shown.labels, CLASSES))
    names = sorted(path.name for path in run.figures_path.iterdir())
    assert names == ["confusion.png", "curves.png", "mistakes.png", "predictions.png", "samples.png"]
    for name in names:
        with Image.open(run.figures_path / name) as image:
            assert min(image.size) > 200
            assert np.asarray(image.convert("L")).std() > 5  # not blank


# As a notebook shows it


class Page(HTMLParser):
    """Tags, attributes and text; a tag closed out of turn fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


RESULT = {
    "dataset": "<i>holiday</i> & co",
    "model": "vit_micro_conv4_8",
    "parameters": 12345,
    "test": {"images": 1200, "accuracy": 0.9, "accuracy_ci95": [0.88, 0.92]},
    "train_seconds": 61.4,
    "best_epoch": 3,
    "epochs": 5,
}


def test_a_run_in_a_notebook(tmp_path):
    pictures: dict[str, Picture] = {}
    for name in ("curves", "predictions", "confusion"):
        Image.new("L", (3, 3)).save(tmp_path / f"{name}.png")
        pictures[name] = Picture(tmp_path / f"{name}.png")
    page = Page(run_html("runs/a<b>", RESULT, pictures))
    assert page.texts == [
        *("run", "runs/a<b>", "data", "<i>holiday</i> & co", "model", "vit_micro_conv4_8, 12,345 parameters"),
        *("test accuracy", "90.00% (95 % interval 88.00% to 92.00%), 1,200 images"),
        *("training", "61 s, best epoch 3 of 5"),
    ]
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [attributes["alt"] for attributes in shown] == ["curves", "predictions"]
    assert all(str(attributes["src"]).startswith("data:image/png;base64,iVBOR") for attributes in shown)


def test_a_run_without_figures_in_a_notebook():
    page = Page(run_html("a", RESULT, {}))
    assert [tag for tag, _ in page.tags].count("tr") == 5


def test_a_run_without_test_images_in_a_notebook():
    result = {"validation" if key == "test" else key: value for key, value in RESULT.items()}
    assert "validation accuracy" in Page(run_html("a", result, {})).texts


def test_an_unfinished_run_in_a_notebook():
    assert Page(run_html("<x>", None, {})).texts == ["<x>", " has not finished"]


def test_a_picture_shows_itself(tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    assert Picture(Path(tmp_path, "a.png"))._repr_png_() == (tmp_path / "a.png").read_bytes()


# What the probabilities are worth


def card(temperature: float, threshold: float | None) -> ModelCard:
    return ModelCard(
        model_name="small",
        model=ViTConfig(),
        classes=CLASSES,
        preprocess=Preprocess(image_size=(8, 8), channels=1, fit="pad"),
        temperature=temperature,
        reject_threshold=threshold,
    )


def test_probabilities_are_drawn_before_and_after_calibration(run, drawn):
    values, labels = logits([0, 1, 2, 0, 1, 2], [3, 3, 3, 1, 1, 1]), np.array([0, 1, 2, 1, 2, 0])
    draw_calibration_figures(run, values, labels, card(2.0, 0.5))
    assert list(drawn) == ["reliability.png", "coverage.png"]
    assert "After calibration, temperature 2.00" in [
        axes.get_title(loc="left") for axes in drawn["reliability.png"].axes
    ]
    texts = [text.get_text() for text in drawn["coverage.png"].findobj(Text)]
    assert any("above 0.5: 50.0 % answered, 100.0 % of them right" in text for text in texts)


def test_nothing_answered_and_nothing_calibrated_are_drawn_too(run, drawn):
    values, labels = logits([0, 1, 2], [1, 1, 1]), np.array([0, 1, 0])
    draw_calibration_figures(run, values, labels, card(1.0, 1.0))
    assert "Reliability" in [axes.get_title(loc="left") for axes in drawn["reliability.png"].axes]
    draw_calibration_figures(run, values, labels, card(1.0, None))
