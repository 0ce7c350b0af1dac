"""On which images methods are checked, and what is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail import api
from vitrail.errors import ConfigError, DataError
from vitrail.loading import Source, find_source
from vitrail.method_checking import check_model


@pytest.fixture(scope="module")
def run(digits_run, tmp_path_factory) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path_factory.mktemp("checked") / "run"))


def test_a_run_is_checked_on_its_own_validation_images(run: Path) -> None:
    source = find_source(run)
    found = check_model(source, source.classifier("cpu"), methods=["attention"], num_images=12)
    assert found["dataset"] == "digits, validation"
    assert found["images"] == 12
    assert found["model"] == "vit_micro_conv4_8"
    written = json.loads((run / "faithfulness.json").read_text())
    assert {**written, "files": found["files"]} == found
    again = check_model(source, source.classifier("cpu"), methods=["attention"], num_images=12)
    del found["methods"]["attention"]["seconds_per_image"], again["methods"]["attention"]["seconds_per_image"]
    assert again == found
    other = check_model(source, source.classifier("cpu"), methods=["attention"], num_images=12, seed=1)
    assert other["methods"]["attention"]["deletion"] != found["methods"]["attention"]["deletion"]


def test_no_test_image_is_looked_at(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vitrail.method_checking as module

    seen: list[str] = []
    own_images = module.own_images

    def noted(directory, dataset, split, preprocess):
        seen.append(split)
        return own_images(directory, dataset, split, preprocess)

    monkeypatch.setattr(module, "own_images", noted)
    api.check_methods(run, methods=["attention"], num_images=4)
    assert seen == ["validation"]


def test_files_of_images_are_drawn_from(run: Path, tmp_path: Path, digit_images: np.ndarray) -> None:
    for index in range(6):
        Image.fromarray(digit_images[index]).save(tmp_path / f"{index}.png")
    found = api.check_methods(run, tmp_path, methods=["attention"], num_images=4, output=tmp_path / "out")
    assert found["dataset"] == "4 image files"
    assert found["mosaics"] == 0
    assert (tmp_path / "out" / "figures" / "faithfulness.png").is_file()


def test_mistakes_are_one_sentence(run: Path, tmp_path: Path) -> None:
    classifier = find_source(run).classifier("cpu")
    with pytest.raises(ConfigError, match="timm:x has no images of its own here; name some: vitrail explain timm:x"):
        check_model(Source("timm:x", None), classifier)
    with pytest.raises(ConfigError, match="images=1 is too few"):
        check_model(find_source(run), classifier, num_images=1)
    (tmp_path / "torn.png").write_text("hello")
    with pytest.raises(DataError, match="Of 1 images 0 can be used; give at least two"):
        check_model(find_source(run), classifier, [tmp_path / "torn.png"])


def test_data_that_has_moved(write_idx, tiny, tmp_path: Path) -> None:
    data = write_idx(tmp_path / "data")
    run = api.train(data, epochs=1, settings=tiny, out=tmp_path / "run").path
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"is not here .*; name images: vitrail explain RUN IMAGE --check"):
        api.check_methods(run)
