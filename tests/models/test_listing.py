import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from torchvision.models import get_model_weights

from vitrail import models
from vitrail.errors import ConfigError
from vitrail.models import MODELS, count_operations, count_parameters, model_config
from vitrail.models.listing import COSTS, list_models

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "models.md"

KEPT: dict[str, list[int]] = json.loads(COSTS.read_text(encoding="utf-8"))

# One of each family that has blocks, and what its blocks can be.
DEEP = {MODELS[name].get("kind", "vit"): name for name in MODELS if getattr(model_config(name), "depth", 0) > 4}
DEEP |= {"map": "vit_so150m_patch16_reg4_map_256", "rope": "vit_tiny_patch16_dinov3_qkvb", "head_dim": "s3_vit_256"}


def test_a_row_tells_sizes_cost_and_weights() -> None:
    (row,) = list_models("vit_base_patch32_224")
    weights = row.pop("weights")
    assert row == {
        "model": "vit_base_patch32_224",
        "family": "vit",
        "parameters": 88_224_232,
        "image_size": "224x224",
        "gflops": pytest.approx(4.06, abs=0.005),
    }
    assert {"source": "timm:vit_base_patch32_224.augreg_in1k", "licence": "apache-2.0"} in weights


def assert_counted(names: Iterable[str]) -> None:
    counted = {name: [count(model_config(name)) for count in (count_parameters, count_operations)] for name in names}
    wrong = "\n".join(f'  "{name}": {costs},' for name, costs in counted.items() if KEPT.get(name) != costs)
    assert not wrong, f"if these are meant, they belong into {COSTS}:\n{wrong}"


def test_what_is_kept_is_what_is_counted() -> None:
    assert_counted(DEEP.values())


@pytest.mark.slow
def test_what_is_kept_of_every_model_is_what_is_counted() -> None:
    assert_counted(MODELS)


def test_costs_are_kept_of_every_model() -> None:
    parameters = json.loads((ROOT / "tests" / "golden" / "parameters.json").read_text(encoding="utf-8"))
    assert [*KEPT] == [*MODELS]
    assert {name: costs[0] for name, costs in KEPT.items()} == parameters


def test_listing_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def builds(config: object) -> None:
        raise AssertionError(f"{config} is built")

    monkeypatch.setattr(models, "build_model", builds)
    assert [row["model"] for row in list_models()] == [*MODELS]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("vit_base_patch16_224", "vit_b_16"), ("vit_base_patch32_224", "vit_b_32"), ("vit_large_patch16_224", "vit_l_16")],
)
def test_operations_are_those_of_torchvisions_table_but_for_the_last_block(name: str, theirs: str) -> None:
    """Of the last block we compute only the class token: nothing of the patches but each head's scores and mixture."""
    config = model_config(name)
    dim, patches = config.embed_dim, (224 // config.patch_size[0]) ** 2
    left_out = patches * 12 * dim**2 + 2 * (patches + 1) * dim * (patches + 1 - config.num_heads)
    published = {
        weights.meta["_ops"] for weights in get_model_weights(theirs) if weights.meta["min_size"] == (224, 224)
    }
    assert [(count_operations(config) + left_out) / 1e9] == pytest.approx([*published], abs=5e-4)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("s5", ["s5_wide_heads_vit", "s5_vit"]),
        ("S5_VIT", ["s5_vit"]),
        ("s*_vit", ["s2_shallow_vit", "s5_wide_heads_vit", "s5_vit"]),
        ("vit_micro_conv[48]_*", ["vit_micro_conv4_8", "vit_micro_conv8_28"]),
        ("s?_vit", ["s5_vit"]),
    ],
)
def test_a_pattern_is_part_of_a_name_or_has_wildcards(pattern: str, found: list[str]) -> None:
    assert [row["model"] for row in list_models(pattern)] == found


def test_timms_models_are_listed_with_their_weights() -> None:
    rows = {row["model"]: row for row in list_models("timm:resnet1?")}
    assert {"timm:resnet10t", "timm:resnet18", "timm:resnet18d"} >= {*rows} >= {"timm:resnet18"}
    row = rows["timm:resnet18"]
    assert (row["parameters"], row["gflops"], row["image_size"]) == (None, None, "224x224")
    assert {"source": "timm:resnet18.a1_in1k", "licence": "apache-2.0"} in row["weights"]


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("vit_tniy", " Did you mean 'vit_tiny_patch16_224'?"),
        ("s5_vitt", " Did you mean 's5_vit'?"),
        ("*nothing*like?this*", ""),
        ("timm:resnt50", " Did you mean 'timm:resnet50'?"),
    ],
)
def test_a_pattern_that_nothing_matches_is_refused(pattern: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'No model named {pattern!r}.{near} `vitrail models` lists')}"):
        list_models(pattern)


def reference_lines() -> dict[str, str]:
    """The lines of the reference's tables, by model."""
    lines = re.findall(
        r"^\| `(\w+)` (\| \d+x\d+ \| [\d,]+ \| [\d.]+ \|)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len({name for name, _ in lines}) == len(lines), "a model has two lines"
    return dict(lines)


def reference_line(row: dict[str, Any]) -> str:
    gflops = float(f"{row['gflops']:.3g}")
    return f"| {row['image_size']} | {row['parameters']:,} | {gflops:g} |"


def test_the_reference_has_every_model_with_its_cost() -> None:
    lines, wanted = reference_lines(), {row["model"]: reference_line(row) for row in list_models()}
    wrong = "\n".join(f"| `{name}` {line}" for name, line in wanted.items() if lines.get(name) != line)
    assert not wrong, f"these are the lines that {REFERENCE} should have:\n{wrong}"
    surplus = sorted(lines.keys() - MODELS.keys())
    assert not surplus, f"take the lines of {surplus} out, there are no such models"
