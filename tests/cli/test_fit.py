"""Every fit from training to a prediction, through the command line."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZES = [(40, 20), (20, 40), (30, 30)]
QUICK = [
    part
    for setting in (
        "model.image_size=32",
        "model.embed_dim=16",
        "model.depth=1",
        "model.num_heads=2",
        "training.batch_size=8",
        "evaluation.bootstrap_samples=20",
    )
    for part in ("--set", setting)
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 200)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for index in range(18):
            pixels = rng.integers(level - 30, level + 30, (*SIZES[index % 3], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{index}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("fit", ["native", "auto", "crop"])
def test_a_fit_goes_from_training_to_prediction(vitrail, pictures, fit, caplog):
    caplog.set_level(logging.INFO, "vitrail")
    chosen = "pad" if fit == "auto" else fit
    done = vitrail("train", "pictures", "--epochs", 1, "--out", "run", "--set", f"data.fit={fit}", *QUICK)
    assert done.code == 0, done.err
    assert ("they are padded (data.fit=pad)" in caplog.text) == (fit == "auto")
    assert json.loads(Path("run/config.json").read_text())["data"]["fit"] == chosen
    card = json.loads(Path("run/model.json").read_text())
    assert card["preprocess"]["fit"] == chosen
    assert card["model"]["padding_mask"] == (fit == "native")
    assert Path("run/figures/samples.png").is_file()

    result = json.loads(Path("run/journal.jsonl").read_text().splitlines()[-1])["result"]
    assert vitrail("evaluate", "run", "--json").json["test"] == result["test"]
    assert vitrail("evaluate", "run", "--image-size", 48, "--json").json["image_size"] == [48, 48]
    assert vitrail("predict", "run", "pictures/dark/0.png", "--json").code == 0
    assert vitrail("embed", "run", "pictures/dark", "--output", "vectors.jsonl").code == 0
    assert vitrail("probe", "run", "--json").code == 0


def test_what_native_does_not_go_with_is_refused(vitrail, pictures):
    native = ("--set", "data.fit=native")
    assert vitrail("train", "pictures", "--epochs", 1, "--out", "run", *native, *QUICK).code == 0
    merged = vitrail("evaluate", "run", "--merge-tokens", 1)
    assert merged.code == 2
    assert "Tokens of a model for fit=native cannot be merged" in merged.err
    exported = vitrail("export", "run", "--format", "timm", "--output", "out")
    assert exported.code != 0
    assert not Path("out").exists()
    other = vitrail("train", "pictures", *native, "--model", "resnet18_32")
    assert other.code != 0
    assert "data.fit=native leaves padding out of attention, which resnet18_32 cannot; use a ViT" in other.err
