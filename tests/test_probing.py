from pathlib import Path

import numpy as np
import pytest

from vitrail.api import load
from vitrail.data.named import read_digits
from vitrail.errors import ConfigError
from vitrail.evaluation.probes import Labelled, knn
from vitrail.probing import probe_classifier, probe_images
from vitrail.runs import RunDirectory


def test_the_runs_own_splits_are_taken(digits_run):
    directory = RunDirectory(digits_run)
    preprocess = load(digits_run).card.preprocess
    for data in ((), ("digits",)):
        images = probe_images(directory, data, preprocess)
        assert (images.dataset, images.num_seen) == ("digits", 0)
        assert sum(map(len, images.parts.values())) == len(read_digits())
        names = [name for part in images.parts.values() for name in part.names]
        assert len({*names}) == len(names)


def test_a_model_without_a_run_needs_data(digits_run, write_tree, tmp_path):
    preprocess = load(digits_run).card.preprocess
    with pytest.raises(ConfigError, match=r"^A published model has no data of its own; name some to probe it with$"):
        probe_images(None, (), preprocess)
    folder = write_tree(tmp_path / "insects", {"ant": 9, "bee": 8})
    images = probe_images(None, (str(folder),), preprocess)
    assert (sum(map(len, images.parts.values())), images.num_seen) == (17, None)
    assert images.parts["train"].pixels.shape[1:] == (8, 8, 1)


def test_broken_files_are_said(digits_run, write_tree, tmp_path, caplog):
    folder = write_tree(tmp_path / "insects", {"ant": 9, "bee": 8})
    Path(folder, "ant", "torn.png").write_text("no image")
    probe_images(None, (str(folder),), load(digits_run).card.preprocess)
    assert "Left out: 1 broken file: " in caplog.text


def test_each_probe_sees_the_vectors_of_its_split(digits_run):
    classifier = load(digits_run)
    images = probe_images(RunDirectory(digits_run), (), classifier.card.preprocess)
    seen, heard = [], []

    def probe(*parts: Labelled):
        seen.extend(parts)
        return knn(*parts)

    found = probe_classifier(classifier, images, probe, lambda done, total: heard.append((done, total)))
    for part, labelled in zip(images.parts.values(), seen, strict=True):
        np.testing.assert_array_equal(labelled.labels, part.labels)
        np.testing.assert_array_equal(labelled.features, classifier.features(part.pixels))
    assert (found["width"], found["test"]["seen_in_training"]) == (32, 0)
    sizes = [len(part) for part in images.parts.values()]
    assert heard == [(sum(sizes[: place + 1]), sum(sizes)) for place in range(3)]
