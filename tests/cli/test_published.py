"""Published models on the command line: to begin with, to use as they are, and to make: train --init, predict, push."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from loopback_hub import TOKEN, LoopbackHub
from other_layouts import to_google
from timm.models._hub import save_for_hf
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from vitrail import api
from vitrail.pretrained import open_pretrained

BARS = ("0", "1", "2")  # the classes of the data that `small` writes
QUICK = ("--epochs=1", "--set=training.batch_size=16", "--set=training.log_steps=2")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of small models that other libraries wrote: timm/, hf/; torch.pth, google.npz."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 64, "depth": 1, "num_heads": 1}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    save_for_hf(model, str(folder / "timm"), model_config={"label_names": list(BARS)}, safe_serialization=True)
    torch.save({"model": model.state_dict()}, folder / "torch.pth")
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
        id2label={0: "ant", 1: "bee"}, label2id={"ant": 0, "bee": 1},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder / "hf")
    ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.4] * 3).save_pretrained(folder / "hf")
    (folder / "hf" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    weights = open_pretrained(str(folder / "timm")).weights
    np.savez(folder / "google.npz", **{name: value.numpy() for name, value in to_google(weights, 1).items()})
    return folder


@pytest.fixture
def filled(hub: LoopbackHub, published: Path) -> LoopbackHub:
    """The hub with these models."""
    hub.add_folder("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", published / "timm")
    hub.add_folder("owner/pets", published / "hf")
    return hub


@pytest.fixture
def bars(write_idx, tmp_path: Path) -> str:
    return str(write_idx(tmp_path / "bars"))


def start(run: str) -> dict:
    return json.loads(Path(run, "journal.jsonl").read_text(encoding="utf-8").splitlines()[0])


def card(run: str) -> dict:
    return json.loads(Path(run, "model.json").read_text(encoding="utf-8"))


def test_training_begins_with_weights_of_the_hub(vitrail, filled, bars, caplog):
    caplog.set_level("INFO", "vitrail")
    done = vitrail("train", bars, "--init", "hf:owner/pets", *QUICK, "--out", "run", "--json")
    assert done.code == 0, done.err
    assert "The head is new, for 3 classes" in caplog.text
    assert "The first layer is fitted to 1 channel, from 3" in caplog.text
    config = json.loads(Path("run/config.json").read_text(encoding="utf-8"))
    assert (config["init"], config["recipe"], config["model_name"]) == ("hf:owner/pets", "finetune", "hf:owner/pets")
    assert config["model"] | {"image_size": [8, 8], "embed_dim": 16, "num_classes": 3, "in_chans": 1} == config["model"]
    assert config["model"]["mean"] == pytest.approx([0.4])
    assert config["data"]["fit"] == "squash"
    origin = {"weights": "hf:owner/pets", "digest": start("run")["init"]["digest"], "license": "mit"}
    assert start("run")["init"] == origin
    assert card("run")["provenance"]["init"] == origin
    assert vitrail("evaluate", "run", "--json").json["test"] == done.json["test"]


def test_training_begins_with_weights_by_timms_name(vitrail, filled, bars, caplog):
    caplog.set_level("INFO", "vitrail")
    done = vitrail("train", bars, "--init", "timm:vit_tiny_patch16_224", *QUICK, "--out", "run", "--json")
    assert done.code == 0, done.err
    assert "The head is new" not in caplog.text  # the same classes
    assert card("run")["provenance"]["init"]["weights"] == "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert done.json["model"] == "vit_tiny_patch16_224"
    again = vitrail("train", bars, "--init", "timm:vit_tiny_patch16_224", "--offline", *QUICK, "--out", "b", "--json")
    assert again.json["test"] == done.json["test"]
    vitrail("train", "--recipe", "run", "--offline", "--out", "c", "--json")
    assert "This repeats run step by step" in caplog.text
    assert Path("run/model.safetensors").read_bytes() == Path("c/model.safetensors").read_bytes()
    assert Path("run/config.json").read_bytes() == Path("c/config.json").read_bytes()


SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in ("timm/model.safetensors", "hf", "torch.pth")]


@pytest.mark.parametrize("name", ["timm", "google.npz", *SLOWLY])
def test_training_begins_with_local_files(vitrail, published, bars, name):
    init = str(published / name)
    done = vitrail("train", bars, "--init", init, *QUICK, "--set=training.learning_rate=1e-9", "--out", "run")
    assert done.code == 0, done.err
    weights = open_pretrained(init).weights
    trained = open_pretrained("run").weights
    torch.testing.assert_close(trained["blocks.0.mlp.fc1.weight"], weights["blocks.0.mlp.fc1.weight"])
    assert published.name not in json.dumps(card("run"))  # no path of this machine


def test_training_begins_with_another_run(vitrail, run, small):
    done = vitrail("train", "photos", "--init", "run", "--epochs=1", "--set=training.learning_rate=1e-9", "--json")
    assert done.code == 0, done.err
    before = api.Run("run").evaluate()["test"]
    assert done.json["test"]["accuracy"] == pytest.approx(before["accuracy"], abs=0.04)
    assert card(done.json["run"])["provenance"]["init"]["weights"] == "run"
    assert api.Run(done.json["run"]).config.init == "run"


def test_a_named_model_takes_the_weights_or_refuses_them(vitrail, published, bars, caplog):
    caplog.set_level("INFO", "vitrail")
    init = str(published / "torch.pth")
    settings = ["--set=model.embed_dim=64", "--set=model.depth=1", "--set=model.num_heads=1"]
    sizes = ["--set=model.patch_size=4", "--set=model.image_size=16"]
    options = ["--model", "vit_tiny_patch16_224", *settings, *sizes]
    done = vitrail("train", bars, "--init", init, *QUICK, *options, "--out", "run")
    assert done.code == 0, done.err
    assert "Position embeddings are resized from 2x2 to 4x4 patches" in caplog.text
    refused = vitrail("train", bars, "--init", init, *QUICK, "--model", "vit_tiny_patch16_224", "--out", "b")
    assert refused.code == 1
    assert "of the weights is not the model's" in refused.error
    other = vitrail("train", bars, "--init", init, *QUICK, "--model", "vit_micro_conv4_8", "--out", "c")
    assert other.code == 1
    assert "of the weights is not the model's" in other.error
    assert not Path("b").exists()
    assert not Path("c").exists()


def test_a_run_goes_on_only_with_the_weights_it_began_with(vitrail, published, bars, interrupted):
    shutil.copytree(published / "timm", "weights")
    arguments = ["train", bars, "--init", "weights", *QUICK, "--set=training.checkpoint_seconds=1e9"]
    whole = vitrail(*arguments, "--out", "whole", "--json")
    assert whole.code == 0
    with interrupted(2):
        assert vitrail(*arguments, "--out", "run").code == 130
    assert list(Path("run/checkpoints").glob("*.json"))
    shutil.rmtree("weights")  # with a checkpoint they are not needed any more
    shutil.copytree("run", "bare")
    done = vitrail("train", "--resume", "--out", "run", "--json")
    assert done.code == 0, done.err
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert card("run") == card("whole")
    for path in Path("bare/checkpoints").iterdir():
        path.unlink()
    gone = vitrail("train", "--resume", "--out", "bare")
    assert (gone.code, gone.error.partition(" (")[0]) == (2, "There are no weights at weights")
    shutil.copytree(published / "hf", "weights")
    other = vitrail("train", "--resume", "--out", "bare")
    assert other.code in (1, 2)
    shutil.rmtree("weights")
    shutil.copytree(published / "timm", "weights")
    done = vitrail("train", "--resume", "--out", "bare", "--init", "weights")
    assert done.code == 0, done.err
    assert Path("bare/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


@pytest.mark.slow
def test_other_weights_of_the_same_model_are_no_repetition_and_do_not_resume(vitrail, published, bars, caplog):
    caplog.set_level("INFO", "vitrail")
    shutil.copytree(published / "timm", "weights")
    assert vitrail("train", bars, "--init", "weights", *QUICK, "--out", "run").code == 0
    weights = open_pretrained("weights").weights
    from safetensors.torch import save_file

    save_file({name: value + 1e-3 for name, value in weights.items()}, "weights/model.safetensors")
    vitrail("train", "--recipe", "run", "--out", "b")
    assert "is no repetition" in caplog.text
    for name in ("model.safetensors", "model.json"):
        Path("run", name).unlink()
    shutil.rmtree("run/checkpoints")
    Path("run/checkpoints").mkdir()
    lines = Path("run/journal.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["event"] != "finished"]
    Path("run/journal.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    refused = vitrail("train", "--resume", "--out", "run")
    assert (refused.code, refused.error) == (
        2,
        "The weights of weights are not those that the run began with; bring these back, or start a new run",
    )


def test_published_models_predict_with_their_own_classes(vitrail, filled, write_photo):
    write_photo(Path("a.png"))
    done = vitrail("predict", "hf:owner/pets", "a.png", "--json")
    assert done.code == 0, done.err
    assert done.json["run"] == "hf:owner/pets"
    assert done.json["predictions"][0]["label"] in ("ant", "bee")
    assert vitrail("predict", "hf:owner/pets", "a.png", "--offline", "--json").json == done.json
    assert "label" in vitrail("predict", "timm:vit_tiny_patch16_224", "a.png").out
    assert api.load("hf:owner/pets", offline=True).predict("a.png").label == done.json["predictions"][0]["label"]
    filled.down = True
    assert vitrail("predict", "hf:owner/pets", "a.png", "--json").json == done.json


def test_published_models_are_evaluated_on_data_with_their_classes(vitrail, filled, published, bars):
    done = vitrail("evaluate", "timm:vit_tiny_patch16_224", bars, "--json")
    assert done.code == 0, done.err
    assert done.json["run"] == "timm:vit_tiny_patch16_224"
    assert (done.json["recipe"], done.json["images_seen"], done.json["test"]["images"]) == (None, None, 30)
    assert vitrail("evaluate", str(published / "timm"), bars, "--json").json["test"] == done.json["test"]
    without = vitrail("evaluate", "hf:owner/pets")
    assert without.error == (
        "hf:owner/pets has no data of its own here; name some: vitrail evaluate hf:owner/pets DATA"
    )
    other = vitrail("evaluate", "hf:owner/pets", bars)
    assert other.code == 2
    assert "has classes that the model does not know, 0, 1, 2; it knows ant, bee" in other.error


def test_a_feature_extractor_is_for_embedding_and_training(vitrail, filled, published, bars, write_photo, tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=8, patch_size=4)).save_pretrained("dino")
    write_photo(Path("a.png"))
    refused = vitrail("predict", "dino", "a.png")
    assert refused.code == 2
    assert refused.error.startswith("dino has no classes: it is a feature extractor; take its vectors with `vitrail e")
    assert vitrail("evaluate", "dino", bars).error == refused.error
    done = vitrail("embed", "dino", "a.png", "--output", "a.jsonl")
    assert done.code == 0, done.err
    done = vitrail("train", bars, "--init", "dino", *QUICK, "--out", "run")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("init", "code", "pattern"),
    [
        ("hf:owner/none", 2, "has no model owner/none, or it is private; check the name, or log in with"),
        ("timm:vit_tniy_patch16_224", 2, "No timm model named 'vit_tniy_patch16_224'. Did you mean 'vit_tiny_patch"),
        ("nothing", 2, "There are no weights at nothing"),
        ("bad.pth", 1, "bad.pth is damaged, was not downloaded whole, or is no file of torch.save"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_leave_no_run(vitrail, filled, bars, init, code, pattern):
    Path("bad.pth").write_bytes(b"PK\x03\x04 torn")
    done = vitrail("train", bars, "--init", init, "--out", "run")
    assert done.code == code
    assert pattern in done.error
    assert not Path("run").exists()


def test_what_can_go_wrong_on_the_way(vitrail, filled, bars):
    arguments = ["train", bars, "--init", "hf:owner/pets", "--out", "run"]
    offline = vitrail(*arguments, "--offline")
    assert offline.code == 1
    assert (
        "config.json of owner/pets is not in the cache and this is offline; where there is a network, do"
        in offline.error
    )
    filled.down = True
    down = vitrail(*arguments)
    assert down.code == 1
    assert " was not reached (" in down.error
    assert "/owner/pets/resolve/main/config.json and the other files of that repository" in down.error
    filled.down = False
    filled.repositories["owner/pets"].gated = True
    gated = vitrail(*arguments)
    assert gated.code == 1
    assert "accept its terms" in gated.error
    filled.repositories["owner/pets"].gated = False
    filled.shortened.add("model.safetensors")
    shortened = vitrail(*arguments)
    assert shortened.code == 1
    assert "model.safetensors of owner/pets could not be fetched: Consistency check failed" in shortened.error
    assert not Path("run").exists()


def test_a_pushed_model_is_used_by_its_name(vitrail, hub, run, write_photo, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = vitrail("push", "run", "owner/bars", "--private", "--json")
    assert done.code == 0, done.err
    assert done.json == {"run": "run", "repository": "owner/bars", "url": f"{hub.url}/owner/bars"}
    files = hub.repositories["owner/bars"].files
    assert {*files} == {"model.safetensors", "model.json", "README.md"}
    assert hub.repositories["owner/bars"].private
    write_photo(Path("a.png"))
    ours = vitrail("predict", "run", "a.png", "--json").json["predictions"]
    assert vitrail("predict", "hf:owner/bars", "a.png", "--json").json["predictions"] == ours
    tested = vitrail("evaluate", "hf:owner/bars", "photos", "--json").json["test"]
    assert tested["accuracy"] == vitrail("evaluate", "run", "--json").json["test"]["accuracy"]
    done = vitrail("train", "photos", "--init", "hf:owner/bars", *QUICK, "--out", "next")
    assert done.code == 0, done.err
    assert vitrail("push", "next", "owner/next").out == f"{hub.url}/owner/next has the model; use it as hf:owner/next\n"
    readme = hub.repositories["owner/next"].files["README.md"].decode()
    assert "base_model: owner/bars" in readme
    assert "It began with the weights hf:owner/bars" in readme
    assert str(Path.cwd()) not in readme


def test_pushing_fails_with_one_sentence(vitrail, hub, run, monkeypatch):
    assert "does not let you push to owner/bars; log in with" in vitrail("push", "run", "owner/bars").error
    assert vitrail("push", "run", "bars").code == 2
    assert vitrail("push", "rnu", "owner/bars").code == 2
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.down = True
    done = vitrail("push", "run", "owner/bars")
    assert done.code == 1
    assert "owner/bars could not be pushed to http://127.0.0.1" in done.error
    lines = Path("run/journal.jsonl").read_text(encoding="utf-8").splitlines()
    Path("run/journal.jsonl").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    assert vitrail("push", "run", "owner/bars").error.startswith(
        "run has not finished; finish it first: vitrail train --r"
    )
