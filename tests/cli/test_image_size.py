"""Images of other sizes than in training, merged tokens, and dropped patches, from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitrail as package
from vitrail.data.named import read_digits
from vitrail.evaluation import softmax


@pytest.fixture
def digits(digits_run) -> str:
    """A run of a model with a convolutional stem, 8x8 images and patches of 4x4."""
    return str(digits_run)


@pytest.fixture(scope="module")
def patches(tmp_path_factory, write_idx, tiny) -> str:
    """A run of a model with sixteen patches of 2x2 in two blocks."""
    folder = tmp_path_factory.mktemp("patches")
    settings = {**tiny, "model.stem": "linear", "model.patch_size": 2, "model.depth": 2}
    return str(package.train(write_idx(folder / "photos"), epochs=2, settings=settings, out=folder / "run").path)


def test_predictions_at_other_sizes(vitrail, digits, digit_images):
    for index in range(3):
        Image.fromarray(digit_images[index]).save(f"{index}.png")
    paths = [f"{index}.png" for index in range(3)]
    plain = vitrail("predict", digits, *paths, "--json").json
    for size, shape in (("16", (16, 16)), ("8x24", (8, 24)), ("5x7", (5, 7))):
        done = vitrail("predict", digits, *paths, "--image-size", size, "--json")
        assert (done.code, done.err) == (0, "")
        classifier = package.load(digits, image_size=shape)
        assert classifier.card.preprocess.image_size == shape
        assert done.json["predictions"] == [found.to_dict() for found in classifier.predict_many(paths)]
        assert done.json != plain
    assert vitrail("predict", digits, *paths, "--image-size", "8", "--json").json == plain


def test_evaluation_at_another_size_says_so(vitrail, digits):
    plain = vitrail("evaluate", digits, "--json").json
    larger = vitrail("evaluate", digits, "--image-size", "12x16", "--json").json
    assert (larger["image_size"], "image_size" in plain, "merge_tokens" in larger) == ([12, 16], False, False)
    assert larger["test"]["images"] == plain["test"]["images"]
    classifier = package.load(digits, image_size="12x16")
    splits = json.loads(Path(digits, "splits.json").read_text())["splits"]["test"]
    images = read_digits().take(np.array(splits["indices"]))
    pixels = np.stack([np.asarray(Image.fromarray(image[..., 0]).resize((12, 12), 3)) for image in images.pixels])
    padded = np.zeros((len(pixels), 12, 16, 1), np.uint8)
    padded[:, :, 2:14, 0] = pixels
    chosen = softmax(classifier.logits(padded)).argmax(axis=1)
    assert larger["test"]["accuracy"] == (chosen == images.labels).mean()
    assert vitrail("evaluate", digits, "--image-size", "8", "--json").json.keys() == plain.keys()


def test_merged_tokens(vitrail, patches):
    plain = vitrail("evaluate", patches, "--json").json
    merged = vitrail("evaluate", patches, "--merge-tokens", "4", "--json").json
    assert (merged["merge_tokens"], "merge_tokens" in plain) == (4, False)
    assert merged["test"]["loss"] != plain["test"]["loss"]
    both = vitrail("evaluate", patches, "--merge-tokens", "4", "--image-size", "12", "--json").json
    assert (both["merge_tokens"], both["image_size"]) == (4, [12, 12])
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("one.png")
    predicted = vitrail("predict", patches, "one.png", "--merge-tokens", "4", "--json").json["predictions"]
    assert predicted == [package.load(patches, merge_tokens=4).predict("one.png").to_dict()]
    assert predicted != [package.load(patches).predict("one.png").to_dict()]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--image-size", "9"],
            "image_size=9 does not fit vit_micro_conv4_8: image_size=9 is not a multiple of patch_size=2; use 8 or 10",
        ),
        (
            ["--image-size", "8x9"],
            "image_size=8x9 does not fit vit_micro_conv4_8: "
            "image_size=9 is not a multiple of patch_size=2; use 8 or 8x10",
        ),
        (
            ["--image-size", "big"],
            "image_size=big is no size in pixels; write 96 for square images, or 96x128 for rows and columns",
        ),
        (["--merge-tokens", "-1"], "merge_tokens=-1 is not possible; use 0 or more"),
    ],
)
@pytest.mark.parametrize("command", [["evaluate"], ["predict", "photo.png"]])
def test_what_does_not_fit_is_one_sentence(vitrail, patches, command, options, sentence):
    Image.new("L", (8, 8)).save("photo.png")
    done = vitrail(command[0], patches, *command[1:], *options, "--json")
    assert (done.code, done.error) == (2, sentence)
    assert done.json == {"error": sentence, "exit_code": 2}


def test_a_model_whose_tokens_cannot_be_merged(vitrail, small):
    assert vitrail("train", *small("photos", epochs=1), "--set=model.pos_embed=rope", "--out=run").code == 0
    done = vitrail("evaluate", "run", "--merge-tokens", "2")
    assert (done.code, done.error) == (
        2,
        "Tokens of a model with pos_embed='rope' cannot be merged: a merged one has no one place",
    )


def test_training_with_dropped_patches(vitrail, small):
    dropping = ["--set=model.patch_drop_rate=0.5", "--set=model.stem=linear", "--set=model.patch_size=2"]
    done = vitrail("train", *small("photos", epochs=40), *dropping, "--out", "run", "--json")
    assert done.code == 0
    assert done.json["test"]["accuracy"] > 0.8  # of three classes
    evaluated = vitrail("evaluate", "run", "--json").json
    assert evaluated["test"] == done.json["test"]  # all patches are looked at
    again = vitrail("train", *small("photos", epochs=40), *dropping, "--out", "again", "--json")
    assert Path("run/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    assert again.json["test"] == done.json["test"]
