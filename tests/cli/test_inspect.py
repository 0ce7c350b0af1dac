import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from timm.models._hub import save_for_hf

import vitrail as package
from vitrail import api

ALL = (
    "filters",
    "positions",
    "attention_distance",
    "attention_entropy",
    "layer_similarity",
    "token_norms",
    "embeddings",
    "layer_probes",
)


@pytest.fixture
def digits(vitrail, digits_run) -> str:
    shutil.copytree(digits_run, "digits")
    return "digits"


def pictures(folder: str) -> list[str]:
    return sorted(path.stem for path in Path(folder).glob("*.png"))


def test_a_vit(vitrail, digits):
    done = vitrail("inspect", digits)
    assert (done.code, done.err) == (0, "")
    *said, last = done.out.splitlines()
    assert last == "8 figures of vit_micro_conv4_8 and inspection.json are in " + str(Path("digits/inspection"))
    assert "near and far" not in "".join(said)  # a note on how to read it
    assert pictures("digits/inspection") == sorted(ALL)


def test_all_of_it_as_json(vitrail, digits):
    result = vitrail("inspect", digits, "--output", "out", "--json").json
    assert {*result} == {"run", "model", "folder", "figures", "missing", "numbers"}
    assert (result["run"], result["model"], result["folder"]) == ("digits", "vit_micro_conv4_8", "out")
    assert [figure["name"] for figure in result["figures"]] == list(ALL)
    assert {*result["figures"][0]} == {"name", "title", "path", "reading", "remarks", "drawn_before"}
    assert result["figures"][0]["path"] == str(Path("out/filters.png"))
    assert package.inspect(digits, output="out").to_json() == result
    written = json.loads(Path("out/inspection.json").read_text(encoding="utf-8"))
    assert written["numbers"] == result["numbers"]
    assert not Path("digits/inspection").exists()


def test_another_size_has_other_patches(vitrail, digits):
    result = vitrail("inspect", digits, "--image-size", "16x24", "--json").json
    assert result["missing"] == {}
    assert result["numbers"]["attention_distance"]["largest"] == pytest.approx((12**2 + 20**2) ** 0.5)


@pytest.fixture(scope="module")
def bars_cnn(tmp_path_factory, write_idx, tiny) -> Path:
    """A folder with `bars` and a finished `run` of a CNN on them."""
    folder = tmp_path_factory.mktemp("cnn")
    write_idx(folder / "bars")
    settings = {"training.batch_size": 16, "model.image_size": 16, "evaluation.report": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("vitrail.reporting.run_figures.NUM_SHOWN", 3)
        api.train("bars", model="timm:test_resnet", epochs=1, settings=settings, out="run")
    return folder


def test_a_cnn_has_what_exists_for_it(vitrail, bars_cnn):
    shutil.copytree(bars_cnn, ".", dirs_exist_ok=True)
    result = vitrail("inspect", "run", "--json").json
    assert [figure["name"] for figure in result["figures"]] == [
        "filters",
        "layer_similarity",
        "embeddings",
        "layer_probes",
    ]
    assert result["missing"] == {
        "positions": "timm's test_resnet has no position embedding of each patch to compare",
        "attention_distance": "timm:test_resnet has no attention",
        "attention_entropy": "timm:test_resnet has no attention",
        "token_norms": "timm:test_resnet has maps of several sizes in place of tokens, whose norms would not compare",
    }
    assert result["numbers"]["layer_similarity"]["layers"] == ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert "No token norms: timm:test_resnet has maps" in vitrail("inspect", "run").out


def test_data_that_has_moved_costs_what_needs_it(vitrail, bars_cnn):
    shutil.copytree(bars_cnn / "run", "run")
    done = vitrail("inspect", "run")
    assert done.code == 0
    assert pictures("run/inspection") == ["filters"]
    gone = "The run's data is not here: there is no folder bars; name it where it is now: vitrail inspect RUN DATA"
    assert f"No layer similarity, token norms, embeddings, layer probes: {gone}\n" in done.out
    shutil.copytree(bars_cnn / "bars", "elsewhere")
    vitrail("inspect", "run", "elsewhere")
    drawn = {path.name: path.read_bytes() for path in Path("run/inspection").glob("*.png")}
    assert pictures("run/inspection") == ["embeddings", "filters", "layer_probes", "layer_similarity"]
    again = vitrail("inspect", "run")
    assert f"Left as drawn before: layer similarity, embeddings, layer probes: {gone}\n" in again.out
    assert again.out.splitlines()[-1].startswith("1 figure of timm:test_resnet and inspection.json are in ")
    assert {path.name: path.read_bytes() for path in Path("run/inspection").glob("*.png")} == drawn


def test_an_unfinished_run_shows_its_validation_images(vitrail, run):
    journal = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text("".join(journal[:-1]))
    result = vitrail("inspect", "run", "--json").json
    assert result["numbers"]["embeddings"]["split"] == "validation"
    assert result["numbers"]["images"] == {"train": 54, "validation": 6}


def test_a_published_model_without_images_and_with(vitrail, write_tree):
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, **sizes)
    names = {"label_names": ["ant", "bee"]}
    save_for_hf(model, "published", model_config=names, safe_serialization=True)
    result = vitrail("inspect", "published", "--json").json
    assert pictures("inspection/published") == ["filters", "positions"]
    assert result["missing"]["embeddings"] == (
        "published has no images of its own here; name some: vitrail inspect published DATA"
    )
    write_tree(Path("insects"), {"ant": 12, "bee": 14})
    result = vitrail("inspect", "published", "insects", "--json").json
    assert result["missing"] == {}
    assert result["numbers"]["layer_probes"]["head"] is not None


def test_images_with_several_labels(vitrail, run, write_tree):
    write_tree(Path("beach"), {"a": 30})
    rows = [f"a/{number:03d}.png,{'sea;sun' if number % 2 else 'sky'}" for number in range(30)]
    Path("beach/list.csv").write_text("image,labels\n" + "\n".join(rows) + "\n", encoding="utf-8")
    options = ("--set", "data.label_separator=;")
    result = vitrail("inspect", "run", "beach/list.csv", *options, "--json").json
    assert {*result["missing"]} == {"embeddings", "layer_probes"}
    assert result["missing"]["embeddings"].startswith("Images may have several labels here")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nothing"], 2, "No run at nothing."),
        (["digits", "nowhere"], 2, "No data set named 'nowhere'."),
        (["digits", "--image-size", "wide"], 2, "image_size=wide is no size in pixels"),
        (["digits", "--output", "digits/config.json"], 1, f"{Path('digits/config.json')} could not be made"),
    ],
)
def test_mistakes(vitrail, digits, arguments, code, sentence):
    done = vitrail("inspect", *arguments, "--json")
    assert done.code == code
    assert done.error.startswith(sentence)
