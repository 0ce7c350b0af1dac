import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file

SPLIT_KEYS = ["images", "accuracy", "accuracy_ci95", "accuracy_bootstrap_ci95"]
SPLIT_KEYS += [key + end for key in ("balanced_accuracy", "macro_precision", "macro_f1") for end in ("", "_ci95")]
SPLIT_KEYS += ["loss", "ece", "temperature", "smallest_difference"]  # so few images calibrate nothing
SPLIT_KEYS += ["accuracy_coverage", "per_class", "confusion"]
KEYS = ["run", "dataset", "recipe", "model", "parameters", "images_seen", "train_seconds", "total_seconds", "stopped"]


def weights(run) -> bytes:
    return Path(run, "model.safetensors").read_bytes()


# What it gives


def test_the_result_as_json(vitrail, small):
    done = vitrail("train", *small("photos"), "--json")
    assert done.code == 0
    result = done.json
    assert [key for key in result if key in KEYS] == sorted(KEYS, key=list(result).index)
    assert {*KEYS, "validation", "test"} <= {*result}
    assert (result["run"], result["dataset"], result["recipe"]) == ("runs/photos-digits-1", "photos", "digits")
    assert (result["model"], result["stopped"]) == ("vit_micro_conv4_8", "done")
    assert result["images_seen"] == 2 * 3 * 16
    assert result["test"]["accuracy"] > 0.5
    assert 0 < result["train_seconds"] < result["total_seconds"]
    for split, count in (("validation", 6), ("test", 30)):
        metrics = result[split]
        assert {*metrics} == {*SPLIT_KEYS}  # with three classes there is no top five
        assert metrics["images"] == count
        low, high = metrics["accuracy_ci95"]
        assert 0 <= low <= metrics["accuracy"] <= high <= 1
        assert np.sum(metrics["confusion"]) == count
        assert [row["class"] for row in metrics["per_class"]] == ["0", "1", "2"]
        assert metrics["accuracy"] == pytest.approx(np.trace(metrics["confusion"]) / count)


def test_the_result_in_words(vitrail, small):
    done = vitrail("train", *small("photos"), "--out", "my run")
    assert done.code == 0
    result = json.loads(Path("my run/journal.jsonl").read_text().splitlines()[-1])["result"]
    first, second, third, fourth = done.out.splitlines()
    accuracy = f"{100 * result['test']['accuracy']:.1f}"
    assert re.fullmatch(rf"test accuracy {accuracy} % \(95 % interval [\d.]+ to [\d.]+\), 30 images", first)
    assert re.fullmatch(r"best epoch [12] of 2 by validation accuracy, [\d.]+ %", second)
    assert re.fullmatch(rf"vit_micro_conv4_8, {result['parameters']:,} parameters, \d+ s in all", third)
    assert fourth == "model, figures and predictions are in my run"
    foretold, last = done.err.splitlines()
    assert re.fullmatch(r"6 steps in 2 epochs, expected to end in about \d+ s, at [\d:]{8}", foretold)
    assert re.fullmatch(r"epoch 2/2  validation accuracy [\d.]+ % .*  [\d,]+ images/s  0 s left", last)


def test_the_files_of_a_run(vitrail, small):
    vitrail("train", *small("photos"), "--out", "run")
    run = Path("run")
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert not {name for name in files if name.endswith(".tmp")}
    assert {
        *("config.json", "environment.json", "splits.json", "journal.jsonl", "metrics.jsonl"),
        *("model.safetensors", "model.json", "predictions/test.parquet"),
        *("figures/samples.png", "figures/curves.png", "figures/predictions.png", "figures/confusion.png"),
        *("checkpoints/step-000000006.json", "checkpoints/step-000000006.safetensors"),
    } <= files
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    assert [line["step"] for line in steps] == [2, 4, 6]
    assert {"step", "epoch", "images_seen", "loss", "learning_rate", "seconds"} <= {*steps[0]}
    evaluations = [line for line in lines if "split" in line]
    assert [{*line} for line in evaluations] == [{"split", "epoch", "accuracy", "loss"}] * 2
    environment = json.loads((run / "environment.json").read_text())
    assert {"python", "packages", "platform", "device", "data_fingerprint"} <= {*environment}


def test_predictions_of_the_test_split(vitrail, small):
    result = vitrail("train", *small("photos"), "--out", "run", "--json").json
    table = pq.read_table("run/predictions/test.parquet").to_pydict()
    assert list(table) == ["image", "label", "prediction", "probability_0", "probability_1", "probability_2"]
    assert table["image"] == [f"test/{index:05d}" for index in range(30)]
    assert table["label"] == [str(index % 3) for index in range(30)]
    probabilities = np.array([table[f"probability_{name}"] for name in "012"])
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-12)
    assert table["prediction"] == [str(index) for index in probabilities.argmax(axis=0)]
    right = np.mean(np.array(table["prediction"]) == np.array(table["label"]))
    assert right == result["test"]["accuracy"]


def test_a_bare_command_trains_on_digits_and_runs_are_numbered(vitrail, tiny):
    settings = [f"--set={key}={value}" for key, value in (tiny | {"training.batch_size": 256}).items()]
    first, second = (vitrail("train", "--epochs=1", *settings, "--json").json for _ in range(2))
    assert (first["run"], second["run"]) == ("runs/digits-digits-1", "runs/digits-digits-2")
    assert (first["dataset"], first["test"]["images"]) == ("digits", 359)
    assert "top5_accuracy" in first["test"]
    assert first["test"] == second["test"]
    assert weights(first["run"]) == weights(second["run"])


def test_the_seed_changes_the_weights_and_not_the_splits(vitrail, small):
    for name, options in {"a": [], "b": [], "c": ["--seed", "7"], "d": ["--set", "seed=7"]}.items():
        assert vitrail("train", *small("photos"), "--out", name, *options).code == 0
    assert weights("a") == weights("b")
    assert weights("c") == weights("d") != weights("a")
    splits = {Path(name, "splits.json").read_text() for name in "abcd"}
    assert len(splits) == 1


def test_validation_images_come_from_the_training_images(vitrail, small):
    vitrail("train", *small("photos"), "--out", "run")
    splits = json.loads(Path("run/splits.json").read_text())["splits"]
    assert {name: part["source"] for name, part in splits.items()} == {
        "train": "train",
        "validation": "train",
        "test": "test",
    }
    train, validation = splits["train"]["indices"], splits["validation"]["indices"]
    assert sorted(train + validation) == list(range(60))
    assert len(validation) == 6
    assert splits["test"]["indices"] is None


def test_a_parquet_file_is_trained_on(vitrail, small, digit_images):
    def png(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return file.getvalue()

    labels = [index % 2 for index in range(40)]
    pixels = [digit_images[index] // 2 + 100 * label for index, label in enumerate(labels)]
    table = pa.table({"image": [{"bytes": png(image), "path": None} for image in pixels], "label": labels})
    pq.write_table(table, "two kinds.parquet")
    result = vitrail("train", *small("two kinds.parquet"), "--json").json
    assert result["run"] == "runs/two_kinds-digits-1"
    assert (result["test"]["images"], result["validation"]["images"]) == (9, 3)
    assert result["test"]["per_class"][1]["class"] == "1"


def test_another_model_and_recipe(vitrail, small):
    done = vitrail("train", *small("photos"), "--model", "s2_shallow_vit", "--json")
    assert (done.code, done.json["model"], done.json["recipe"]) == (0, "s2_shallow_vit", "digits")
    config = json.loads(Path(done.json["run"], "config.json").read_text())
    assert config["model"]["image_size"] == [28, 28]  # images are enlarged to what the model takes
    done = vitrail("train", *small("photos"), "--recipe", "s5_vit_mnist", "--json")
    assert (done.code, done.json["model"], done.json["recipe"]) == (0, "s5_vit", "s5_vit_mnist")
    assert done.json["run"] == "runs/photos-s5_vit_mnist-1"


def test_settings_of_every_type(vitrail, small):
    settings = {
        "training.optimizer": "adamw",
        "training.betas": "0.8,0.9",
        "training.clip_norm": "none",
        "model.class_token": "true",
        "model.patch_size": "8x8",
        "data.validation_rate": "0.2",
        "training.early_stop_epochs": "5",
    }
    done = vitrail(
        "train", *small("photos"), "--out", "run", *(f"--set={key}={value}" for key, value in settings.items())
    )
    assert done.code == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["training"]["optimizer"] == "adamw"
    assert config["training"]["betas"] == [0.8, 0.9]
    assert config["training"]["clip_norm"] is None
    assert config["model"]["class_token"] is True
    assert config["model"]["patch_size"] == [8, 8]
    assert config["data"]["validation_rate"] == 0.2
    assert config["training"]["early_stop_epochs"] == 5


def test_bfloat16(vitrail, small):
    done = vitrail("train", *small("photos"), "--out", "half", "--precision", "bfloat16")
    assert done.code == 0
    assert json.loads(Path("half/journal.jsonl").read_text().splitlines()[0])["bfloat16"] is True
    vitrail("train", *small("photos"), "--out", "full", "--precision", "float32")
    half, full = load_file("half/model.safetensors"), load_file("full/model.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {tensor.dtype for tensor in full.values()}
    assert weights("half") != weights("full")


def test_early_stop_is_said(vitrail, small):
    options = ["--set=training.early_stop_epochs=1", "--set=training.learning_rate=1e-12"]
    result = vitrail("train", *small("photos", epochs=9), *options, "--json").json
    assert (result["stopped"], result["epochs"], result["best_epoch"]) == ("early", 2, 1)


def test_paths_with_spaces_and_letters_of_all_kinds(vitrail, small):
    done = vitrail("train", *small("Fotos für Jürgen"), "--out", "Läufe/erster Lauf")
    assert done.code == 0
    assert done.out.endswith("are in Läufe/erster Lauf\n")
    assert vitrail("evaluate", "Läufe/erster Lauf").code == 0


def test_a_time_is_kept_to_and_a_run_repeated(vitrail, small):
    arguments = [argument for argument in small("photos") if not argument.startswith("--epochs")]
    done = vitrail("train", *arguments, "--time", "3s", "--out", "timed", "--json")
    assert (done.code, done.json["stopped"]) == (0, "time")
    assert done.json["images_seen"] >= 10 * 16
    assert done.err.startswith(f"{json.loads(Path('timed/journal.jsonl').read_text().splitlines()[1])['num_steps']:,} ")
    again = vitrail("train", "--recipe", "timed", "--json")
    assert again.json["run"] == "runs/photos-digits-1"
    assert again.json["images_seen"] == done.json["images_seen"]
    assert weights("timed") == weights("runs/photos-digits-1")


def test_epochs_and_time_exclude_each_other(vitrail, small):
    done = vitrail("train", *small("photos"), "--time=10m")
    assert (done.code, done.error) == (2, "Epochs and a time both say how long to train; leave --epochs or --time out")
