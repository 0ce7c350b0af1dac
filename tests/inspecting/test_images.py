import json
import shutil
from pathlib import Path

import pytest

from vitrail import api
from vitrail.errors import ConfigError
from vitrail.inspecting import inspection_folder, inspection_images
from vitrail.loading import Source, find_source


@pytest.fixture
def run(digits_run, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_run, "run")
    return Path("run")


def test_a_runs_own_images(run):
    source = find_source(run)
    found = inspection_images(source, (), source.classifier("cpu"))
    assert {name: len(images) for name, images in found.parts.items()} == {
        "train": 1259,
        "validation": 179,
        "test": 359,
    }
    assert found.classes == tuple("0123456789")
    assert (
        inspection_images(source, ("digits",), source.classifier("cpu")).parts["test"].names
        == found.parts["test"].names
    )


def test_the_test_images_of_an_unfinished_run_are_left_alone(run):
    journal = run / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    source = find_source(run)
    assert {*inspection_images(source, (), source.classifier("cpu")).parts} == {"train", "validation"}


def test_data_that_has_moved_or_changed_is_said(run, write_tree, tiny):
    write_tree(Path("insects"), {"ant": 12, "bee": 14})
    api.train("insects", epochs=1, settings={**tiny, "model.image_size": 8}, out="other")
    source = find_source("other")
    classifier = source.classifier("cpu")
    next(Path("insects/ant").iterdir()).unlink()
    changed = inspection_images(source, (), classifier)
    assert len(changed.parts) < 3
    shutil.rmtree("insects")
    moved = inspection_images(source, (), classifier)
    assert moved.parts == {}
    assert moved.no_images == (
        "The run's data is not here: there is no folder insects; name it where it is now: vitrail inspect RUN DATA"
    )
    write_tree(Path("more"), {"cat": 12, "dog": 14})
    assert inspection_images(source, ("more",), classifier).classes == ("cat", "dog")
    with pytest.raises(ConfigError, match="No data set named 'nowhere'"):
        inspection_images(source, ("nowhere",), classifier)


def test_a_published_model_has_none(run):
    source, classifier = Source("timm:some", None), find_source(run).classifier("cpu")
    found = inspection_images(source, (), classifier)
    assert found.parts == {}
    assert found.no_images == "timm:some has no images of its own here; name some: vitrail inspect timm:some DATA"
    assert sum(map(len, inspection_images(source, ("digits",), classifier).parts.values())) == 1797


def test_where_figures_go(run):
    assert inspection_folder(find_source(run)) == Path("run/inspection")
    assert inspection_folder(Source("hf:owner/model", None)) == Path("inspection/hf_owner_model")
    assert json.loads((run / "config.json").read_text())["data"]["source"] == "digits"
