"""Models of every family through the commands: trained, resumed, evaluated, used."""

import re
import signal

import pytest

FAMILIES = {
    "timm:test_resnet": ["--set=model.image_size=16"],
    "cct_2_3x2_32": ["--set=model.image_size=16", "--set=model.embed_dim=16"],
}


def options(name):
    return ["--model", name, "--epochs=2", "--set=training.batch_size=16", *FAMILIES.get(name, [])]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_trained_evaluated_and_used(vitrail, write_idx, write_photo, tmp_path, name):
    write_idx(tmp_path / "bars")
    done = vitrail("train", "bars", *options(name), "--out", "run", "--json")
    assert done.code == 0, done.err
    assert done.json["model"] == name
    assert f'"kind": "{re.match("[a-z]+", name)[0]}"' in (tmp_path / "run" / "model.json").read_text(encoding="utf-8")
    evaluated = vitrail("evaluate", "run", "--json")
    assert evaluated.code == 0
    assert evaluated.json["test"]["accuracy"] == done.json["test"]["accuracy"]
    write_photo(tmp_path / "one.png", mode="L")
    predicted = vitrail("predict", "run", "one.png", "--json")
    assert predicted.code == 0


@pytest.mark.slow
def test_a_cnn_learns_the_digits(vitrail):
    settings = ["model.image_size=8", "training.optimizer=sgd", "training.learning_rate=0.02", "training.momentum=0.9"]
    done = vitrail(
        "train", "digits", "--model=resnet18_32", "--epochs=4", *(f"--set={text}" for text in settings), "--json"
    )
    assert done.code == 0, done.err
    assert done.json["test"]["accuracy"] > 0.7


@pytest.mark.parametrize("name", ["timm:test_resnet", pytest.param("cct_2_3x2_32", marks=pytest.mark.slow)])
def test_an_interrupted_model_goes_on(vitrail, write_idx, tmp_path, interrupted, name):
    write_idx(tmp_path / "bars")
    whole = vitrail("train", "bars", *options(name), "--out", "whole")
    assert whole.code == 0, whole.err
    with interrupted(signal.SIGINT):
        assert vitrail("train", "bars", *options(name), "--out", "stopped").code == 130
    assert vitrail("train", "--resume", "--out", "stopped").code == 0
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "stopped")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "timm:resnet81"],
            "No timm model named 'resnet81'. Did you mean 'resnet18'? `timm.list_models()` lists them",
        ),
        (
            ["--model", "alexnet", "--set=model.image_size=32"],
            "model.image_size=32 is too small for alexnet; use 63 or more, or model.small_images=true",
        ),
        (
            ["--model", "resnet18_32", "--set=model.patch_size=4"],
            "No setting named 'model.patch_size'. ",
        ),
        (
            ["--model", "timm:test_resnet", "--set=model.image_size=8", "--set=training.batch_size=1"],
            "One image whose last maps have one position leaves batch norm nothing to measure in training; "
            "use a larger batch_size, fewer micro-batches, or a larger image_size",
        ),
    ],
)
def test_mistakes(vitrail, write_idx, tmp_path, arguments, message):
    write_idx(tmp_path / "bars")
    done = vitrail("train", "bars", *arguments, "--epochs=1")
    assert done.code == 2
    assert done.error.startswith(message)
