from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrail.errors import CheckpointError
from vitrail.predictions import write_parquet
from vitrail.reporting import report_answers
from vitrail.reporting.report_answers import answers_of, read_answers

NAMES = ("a", "b", "c")


def test_one_label_an_image() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.35, 0.25]])
    answers = answers_of("test", NAMES, np.array([0, 1, 0]), probabilities)
    assert answers.given.tolist() == [0, 2, 0]
    assert answers.wrong.tolist() == [False, True, False]
    np.testing.assert_allclose(answers.sure, [0.7, 0.6, 0.4])
    np.testing.assert_allclose(answers.margin, [0.5, 0.3, 0.05])
    np.testing.assert_allclose(answers.missed, [0.3, 0.7, 0.6])


def test_several_labels_an_image() -> None:
    labels = np.array([[1, 0], [0, 0]])
    answers = answers_of("test", NAMES[:2], labels, np.array([[0.9, 0.2], [0.6, 0.3]]))
    assert answers.given.tolist() == [[True, False], [True, False]]
    assert answers.wrong.tolist() == [False, True]
    np.testing.assert_allclose(answers.sure, [0.8, 0.6])
    np.testing.assert_allclose(answers.margin, [0.6, 0.2])
    np.testing.assert_allclose(answers.missed, [0.2, 0.6])


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_file_says_what_its_probabilities_are(
    other_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, multilabel: bool
) -> None:
    """Read in parts of two columns, and against the whole matrix at once."""
    import pyarrow.parquet as pq

    monkeypatch.setattr(report_answers, "_COLUMNS", 2)
    run = other_run(num_classes=5, multilabel=multilabel)
    path, classes = run.directory.predictions_path / "test.parquet", run.classifier.classes
    table = pq.read_table(path)
    whole = np.stack([table.column(f"probability_{name}").to_numpy() for name in classes], axis=1)
    images = run.images["test"]
    found, expected = read_answers(path, classes), answers_of("test", images.names, images.labels, whole)
    assert found.names == expected.names
    for name in ("labels", "given", "sure", "margin", "missed"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), err_msg=name)


def test_files_that_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "test.parquet"
    path.parent.mkdir()
    sentence = r"^predictions/test\.parquet is missing or damaged$"
    with pytest.raises(CheckpointError, match=sentence):
        read_answers(path, ("ant",))
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(CheckpointError, match=sentence):
        read_answers(path, ("ant",))
    write_parquet(path, {"image": ["a"], "label": ["bee"], "prediction": ["bee"], "probability_bee": [1.0]})
    with pytest.raises(CheckpointError, match=sentence):
        read_answers(path, ("ant",))
