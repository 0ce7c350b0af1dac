import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.api import load
from vitrail.errors import CheckpointError
from vitrail.inspecting import Inspection, inspect_model, inspection_images
from vitrail.inspecting.drawing import FIGURES
from vitrail.loading import find_source


@pytest.fixture(scope="module")
def classifier(digits_run):
    return load(digits_run)


@pytest.fixture(scope="module")
def images(digits_run, classifier):
    return inspection_images(find_source(digits_run), (), classifier)


@pytest.fixture(scope="module")
def inspected(classifier, images, tmp_path_factory) -> Inspection:
    return inspect_model(classifier, images.parts, tmp_path_factory.mktemp("out") / "new" / "inspection")


def test_a_vits_figures_are_all_there(inspected):
    assert inspected.missing == {}
    assert [figure.name for figure in inspected.figures] == list(FIGURES)
    for figure in inspected.figures:
        assert figure.path == inspected.folder / f"{figure.name}.png"
        with Image.open(figure.path) as picture:
            assert min(picture.size) > 200
    assert (inspected.run, inspected.model) == ("vit_micro_conv4_8", "vit_micro_conv4_8")


def test_the_file_of_numbers_goes_with_its_figures(inspected):
    written = json.loads((inspected.folder / "inspection.json").read_text(encoding="utf-8"))
    content = inspected.to_json()
    assert str(inspected.folder) not in json.dumps(written)
    assert {**written, "folder": content["folder"], "figures": 0} == {**content, "figures": 0}
    assert [figure["path"] for figure in written["figures"]] == [f"{name}.png" for name in FIGURES]
    numbers = written["numbers"]
    assert numbers["images"] == {"train": 1259, "validation": 179, "test": 359}
    assert np.shape(numbers["attention_distance"]["pixels"]) == (1, 2)
    assert np.array(numbers["layer_similarity"]["cka"]).tolist() == [[1]]
    assert numbers["layer_probes"]["validation_images"] == 179


def test_the_same_model_gives_the_same_bytes(classifier, images, inspected, tmp_path):
    again = inspect_model(classifier, images, tmp_path)
    for one, other in zip(inspected.figures, again.figures, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes(), one.name
    assert again.numbers == inspected.numbers


def test_without_images_filters_and_positions_remain(classifier, tmp_path):
    (tmp_path / "embeddings.png").write_bytes(b"old")
    found = inspect_model(classifier, {}, tmp_path)
    assert [figure.name for figure in found.figures] == ["filters", "positions"]
    assert {*found.missing} == {*FIGURES} - {"filters", "positions"}
    assert {*found.missing.values()} == {"There are no images to look at; name some: vitrail inspect RUN DATA"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["filters.png", "inspection.json", "positions.png"]


def test_what_cannot_be_drawn_now_stays_as_it_was(classifier, inspected, tmp_path):
    folder = tmp_path / "inspection"
    shutil.copytree(inspected.folder, folder)
    for _ in range(2):
        found = inspect_model(classifier, {}, folder)
        kept = [figure for figure in found.figures if figure.drawn_before]
        assert {figure.name for figure in kept} == {*found.missing} == {*FIGURES} - {"filters", "positions"}
        for old, new in zip(inspected.figures, found.figures, strict=True):
            assert (new.name, new.title, new.reading, new.remarks) == (old.name, old.title, old.reading, old.remarks)
            assert new.path.read_bytes() == old.path.read_bytes()
        assert found.numbers == inspected.numbers
        written = json.loads((folder / "inspection.json").read_text(encoding="utf-8"))
        assert [figure["name"] for figure in written["figures"] if figure["drawn_before"]] == [one.name for one in kept]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '"a"', "model", "run", "picture"])
def test_figures_of_another_model_or_of_damaged_files_do_not_stay(classifier, inspected, tmp_path, damage):
    shutil.copytree(inspected.folder, tmp_path, dirs_exist_ok=True)
    written = json.loads((tmp_path / "inspection.json").read_text(encoding="utf-8"))
    if damage == "picture":
        (tmp_path / "embeddings.png").unlink()
    else:
        text = json.dumps({**written, damage: "another"}) if damage in written else damage
        (tmp_path / "inspection.json").write_text(text, encoding="utf-8")
    found = inspect_model(classifier, {}, tmp_path)
    assert "embeddings" not in [figure.name for figure in found.figures]
    assert (tmp_path / "token_norms.png").exists() == (damage == "picture")


def test_an_empty_split_costs_what_needs_it(classifier, images, tmp_path):
    empty = images.parts["validation"].take(np.array([], np.int64))
    found = inspect_model(classifier, {**images.parts, "validation": empty}, tmp_path)
    assert dict(found.missing) == {
        "layer_probes": "There are no validation images to look at, but those of train, test"
    }


def test_progress_is_heard(classifier, images, tmp_path):
    heard: list[tuple[int, int]] = []
    inspect_model(classifier, images, tmp_path, lambda done, total: heard.append((done, total)))
    assert heard[-1] == (1179, 1179)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_a_notebook_shows_the_figures_and_their_sentences(inspected):
    assert repr(inspected) == f"Inspection(vit_micro_conv4_8, 8 figures in {inspected.folder})"
    first = replace(inspected.figures[0], title='<"a">', remarks=("<b>Odd</b>",))
    page = replace(inspected, model="<i>", figures=(first,), missing={"positions": "<script>"})._repr_html_()
    assert "data:image/png;base64,iVBOR" in page
    assert 'alt="&lt;&quot;a&quot;&gt;"' in page
    for sentence in ("&lt;i&gt;", "&lt;b&gt;Odd&lt;/b&gt;", "Not drawn: positions: &lt;script&gt;", first.reading[:30]):
        assert sentence in page
    assert inspected._repr_html_().count("<img ") == 8


def test_a_folder_that_cannot_be_made(classifier, tmp_path):
    Path(tmp_path, "file").touch()
    with pytest.raises(CheckpointError, match=r"file.out could not be made: .*; name another folder$"):
        inspect_model(classifier, {}, tmp_path / "file" / "out")
