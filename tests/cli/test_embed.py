import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vitrail as package


@pytest.fixture
def digits(digits_run) -> str:
    return str(digits_run)


@pytest.fixture
def scans(vitrail, digit_images) -> Path:
    """./scans: four digits, and one file that is no image."""
    folder = Path("scans")
    (folder / "below").mkdir(parents=True)
    for index in range(4):
        Image.fromarray(digit_images[index]).save(folder / "below" / f"{index}.png")
    (folder / "torn.png").write_text("hello")
    return folder


def test_vectors_of_a_folder(vitrail, digits, scans):
    done = vitrail("embed", digits, "scans/below", "--output", "out.parquet")
    assert (done.code, done.out, done.err) == (0, "4 vectors of 32 values are in out.parquet\n", "")
    table = pq.read_table("out.parquet")
    assert table["image"].to_pylist() == [f"scans/below/{index}.png" for index in range(4)]
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(vectors, package.embed(digits, "scans/below").vectors, rtol=1e-6)
    metadata = table.schema.metadata
    weights = Path(digits, "model.safetensors").read_bytes()
    assert metadata[b"vitrail.digest"].decode() == hashlib.sha256(weights).hexdigest()
    done = vitrail("embed", digits, "scans/below", "--output", "out.parquet", "--json")
    assert done.json == {"run": digits, "output": "out.parquet", "images": 4, "width": 32}


def test_an_image_that_cannot_be_read(vitrail, digits, scans):
    done = vitrail("embed", digits, "scans", "--output", "out.csv", "--json")
    sentence = "scans/torn.png is not an image that can be read: it is not in an image format that is known"
    assert (done.code, done.err) == (1, f"error: {sentence}\n")
    assert done.json == {
        "run": digits,
        "output": "out.csv",
        "images": 4,
        "width": 32,
        "error": "1 of 5 images could not be read",
    }
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [row["error"] for row in rows] == ["", "", "", "", sentence]
    assert len(rows[0]) == 3 + 32


def test_other_sizes(vitrail, digits, scans):
    for options in ([], ["--image-size", "16x12"]):
        assert vitrail("embed", digits, "scans/below", "--output", "out.parquet", *options).code == 0
        vectors = np.array(pq.read_table("out.parquet")["embedding"].to_pylist(), np.float32)
        expected = package.embed(digits, "scans/below", image_size=(16, 12) if options else None).vectors
        np.testing.assert_allclose(vectors, expected, rtol=1e-6)


def test_predictions_do_not_depend_on_where_the_vector_is_taken(vitrail, digits, scans):
    classifier = package.load(digits)
    head = classifier.engine.model.head
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    for path in scans.glob("below/*.png"):
        logits = weight @ classifier.embed(path) + bias
        assert classifier.classes[logits.argmax()] == classifier.predict(path).label


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scans", "--output", "out.npy"], "out.npy does not end in .csv, .jsonl, .parquet; embeddings are written as"),
        (["scans", "--output", "no/out.csv"], "no does not exist; make that folder first, or write elsewhere"),
        (["nothing", "--output", "out.csv"], "nothing does not exist; name an image file, a folder or a pattern"),
        (["scans"], "Missing option '--output'; `vitrail embed --help` shows its usage"),
    ],
)
def test_mistakes(vitrail, digits, scans, arguments, sentence):
    done = vitrail("embed", digits, *arguments, "--json")
    assert done.code == 2
    assert done.error.startswith(sentence)
    assert done.json == {"error": done.error, "exit_code": 2}
    assert not Path("out.csv").exists()


def test_paths_are_looked_at_before_the_model_is_loaded(vitrail, digits, scans):
    broken = Path("broken")
    shutil.copytree(digits, broken)
    broken.joinpath("model.safetensors").write_bytes(b"")
    done = vitrail("embed", str(broken), "nothing", "--output", "out.csv")
    assert done.error.startswith("nothing does not exist; name an image file, a folder or a pattern")


def test_the_run_is_looked_up_once(vitrail, digits, scans, monkeypatch):
    embed = package.api.embed

    def while_another_finishes(run, images, **how):
        done = embed(run, images, **how)
        shutil.copytree(digits, "runs/0002-later")
        return done

    shutil.copytree(digits, "runs/0001-digits")
    monkeypatch.setattr(package.api, "embed", while_another_finishes)
    done = vitrail("embed", "last", "scans/below", "--output", "out.csv", "--json")
    assert Path(done.json["run"]).name == "0001-digits"
