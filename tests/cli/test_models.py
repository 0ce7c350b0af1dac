"""vitrail models"""

import pytest

from vitrail.models import MODELS

TINY_PATCH16_384 = """\
model                 parameters  image_size  GFLOPs  weights   licence
vit_tiny_patch16_384     5790376  384x384        4.3  timm (1)  apache-2.0

weights                                         licence
timm:vit_tiny_patch16_384.augreg_in21k_ft_in1k  apache-2.0
"""


def test_one_model_with_its_weights(vitrail):
    done = vitrail("models", "vit_tiny_patch16_384")
    assert (done.code, done.err, done.out) == (0, "", TINY_PATCH16_384)


def test_models_without_weights(vitrail):
    assert [line.split() for line in vitrail("models", "s5").out.splitlines()] == [
        ["model", "parameters", "image_size", "GFLOPs", "weights", "licence"],
        ["s5_wide_heads_vit", "613710", "28x28", "0.00744", "-", "-"],
        ["s5_vit", "371910", "28x28", "0.0044", "-", "-"],
    ]


def test_models_as_json(vitrail):
    done = vitrail("models", "vit_small_patch8_224", "--json")
    assert (done.code, done.err) == (0, "")
    (row,) = done.json["models"]
    assert row == {
        "model": "vit_small_patch8_224",
        "family": "vit",
        "parameters": 22_055_272,
        "image_size": "224x224",
        "gflops": pytest.approx(20.5, abs=0.05),
        "weights": [
            {"source": "timm:vit_small_patch8_224.dino", "licence": "apache-2.0"},
            {"source": "hf:facebook/dino-vits8", "licence": "apache-2.0"},
        ],
    }


@pytest.mark.slow
def test_all_models(vitrail):
    done = vitrail("models")
    assert done.code == 0
    assert all(" models, " in line for line in done.err.splitlines())  # how far it is
    heading, *lines = done.out.splitlines()
    assert heading.split() == ["model", "parameters", "image_size", "GFLOPs", "weights", "licence"]
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert [row["model"] for row in vitrail("models", "--json").json["models"]] == list(MODELS)


def test_timms_own(vitrail):
    done = vitrail("models", "timm:vit_tiny_patch16_384")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].split() == [
        *("timm:vit_tiny_patch16_384", "-", "384x384", "-", "timm", "(1)", "apache-2.0")
    ]


@pytest.mark.parametrize(
    ("pattern", "near"),
    [("vit_tniy", "vit_tiny_patch16_224"), ("timm:vit_tniy_patch16_224", "timm:vit_tiny_patch16_224")],
)
def test_a_pattern_that_nothing_matches(vitrail, pattern, near):
    done = vitrail("models", pattern, "--json")
    assert done.code == 2
    assert done.error == f"No model named {pattern!r}. Did you mean {near!r}? `vitrail models` lists them"
    assert done.json["error"] == done.error
