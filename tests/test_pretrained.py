"""Weights that exist already: files that other libraries wrote, on a hub on this machine, in folders and alone."""

import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from loopback_hub import LoopbackHub, Repository
from other_layouts import to_google
from timm.models._hub import save_for_hf
from torchvision.models import VisionTransformer
from torchvision.transforms import InterpolationMode
from transformers import (
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from vitrail.errors import CheckpointError, ConfigError
from vitrail.models.vit_config import ViTConfig as OurConfig
from vitrail.pretrained import is_published, open_pretrained, settled

PETS = ("ant", "bee", "cow")
TIMM_REPOSITORY = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))


@pytest.fixture
def timm_vit(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    """A small ViT of timm's, and the folder in which timm saved it."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes).eval()
    save_for_hf(model, str(tmp_path / "timm"), model_config={"label_names": list(PETS)}, safe_serialization=True)
    return model, tmp_path / "timm"


@pytest.fixture
def hf_vit(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    """A small ViT of transformers, and the folder in which it saved model and processor."""
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(PETS)),
        label2id={name: index for index, name in enumerate(PETS)},
    )
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "hf")
    ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=3).save_pretrained(tmp_path / "hf")
    return model, tmp_path / "hf"


def scaled(images: torch.Tensor) -> torch.Tensor:
    return (images / 255 - 0.5) / 0.5


def same(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(logits, expected, atol=1e-5)


def test_a_model_of_timms_is_ours_with_equal_logits(hub: LoopbackHub, timm_vit, images: torch.Tensor) -> None:
    model, folder = timm_vit
    hub.add_folder(TIMM_REPOSITORY, folder)
    for name in ("timm:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"):
        found = open_pretrained(name)
        assert found.name == "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
        assert same(found.module()(images), model(scaled(images)))
    assert found.config.kind == "vit"
    assert found.classes == PETS
    assert (found.config.image_size, found.config.mean, found.preprocess.fit) == ((32, 32), (0.5,) * 3, "crop")
    assert found.card.provenance == {"weights": found.name, "license": "apache-2.0"}
    assert (found.preprocess.crop_rate, found.notes) == (0.9, ())
    again = open_pretrained("timm:vit_tiny_patch16_224", offline=True)
    assert again.digest == found.digest
    assert open_pretrained(str(folder)).digest == found.digest
    assert open_pretrained(str(folder / "model.safetensors")).classes == PETS


@pytest.mark.parametrize(("name", "kind"), [("test_vit", "vit"), ("test_resnet", "timm"), ("test_convnext", "timm")])
def test_whatever_timm_has_can_be_opened(hub: LoopbackHub, tmp_path: Path, name: str, kind: str) -> None:
    torch.manual_seed(2)
    model = timm.create_model(f"{name}.r160_in1k").eval()
    save_for_hf(model, str(tmp_path / name), safe_serialization=False)
    hub.add_folder(f"timm/{name}.r160_in1k", tmp_path / name)
    found = open_pretrained(f"timm:{name}")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, *found.config.image_size), np.uint8))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.config.mean, found.config.std))
    assert found.config.kind == kind
    assert same(found.module()(images), model((images / 255 - mean) / std))
    assert found.classes[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert len({*found.classes}) == 1000


def test_weights_that_timm_only_points_to_are_opened_as_timm_opens_them(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    model = timm.create_model("test_convnext.r160_in1k").eval()
    weights = {f"visual.trunk.{name}": part for name, part in model.state_dict().items() if "head.fc" not in name}
    weights["visual.head.proj.weight"] = model.head.fc.weight
    model.head.fc.bias.data.zero_()
    (tmp_path / "clip").mkdir()
    torch.save(weights, tmp_path / "clip" / "open_clip_pytorch_model.bin")
    hub.add_folder("owner/clip", tmp_path / "clip")
    commit = hub.repositories["owner/clip"].commit
    known = dataclasses.replace(timm.get_pretrained_cfg("test_convnext.r160_in1k"), hf_hub_id=f"owner/clip@{commit}")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: known)
    for config in (None, {"model_cfg": {"embed_dim": 512}}):
        if config is not None:
            hub.repositories["owner/clip"].files["config.json"] = json.dumps(config).encode()
            commit = hub.repositories["owner/clip"].commit
            known = dataclasses.replace(known, hf_hub_id=f"owner/clip@{commit}")
        found = open_pretrained("timm:test_convnext")
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 160, 160), np.uint8))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.config.mean, found.config.std))
        assert same(found.module()(images), model((images / 255 - mean) / std))
        assert len(found.classes) == 1000
        assert any(f"/resolve/{commit}/open_clip_pytorch_model.bin" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("name", "arguments", "odd"),
    [
        ("vit_tiny_patch16_224", {"act_layer": "quick_gelu", "depth": 1}, "depth=1, act_layer='quick_gelu'"),
        ("resnet18", {"act_layer": "silu"}, "act_layer='silu'"),
        ("resnet10t", {"global_pool": "max"}, "global_pool='max'"),
    ],
)
def test_what_timm_built_otherwise_than_its_name_tells_is_refused(
    tmp_path: Path, name: str, arguments: dict[str, object], odd: str
) -> None:
    save_for_hf(timm.create_model(name, num_classes=5, **arguments), str(tmp_path), safe_serialization=True)
    with pytest.raises(CheckpointError, match=f"^The weights are of timm's {name} with ") as caught:
        open_pretrained(str(tmp_path))
    assert all(part in str(caught.value) for part in odd.split(", "))


def test_a_damaged_model_of_timms_is_called_damaged(timm_vit) -> None:
    _, folder = timm_vit
    damage(folder, model_args={"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 5})
    with pytest.raises(CheckpointError, match=r"^timm cannot build 'vit_tiny_patch16_224' as its description says"):
        open_pretrained(str(folder))


def test_a_model_of_transformers_comes_with_its_classes_and_preprocessing(
    hub: LoopbackHub, hf_vit, images: torch.Tensor
) -> None:
    model, folder = hf_vit
    (folder / "README.md").write_text("---\ntags:\n- x\nlicense: mit\n---\n# A model\n", encoding="utf-8")
    hub.add_folder("owner/pets", folder)
    found = open_pretrained("hf:owner/pets")
    assert same(found.module()(images), model(scaled(images)).logits)
    assert found.classes == PETS
    assert (found.preprocess.image_size, found.preprocess.fit, found.config.std) == ((32, 32), "squash", (0.5,) * 3)
    assert found.card.provenance == {"weights": "hf:owner/pets", "license": "mit"}
    assert found.notes == ()
    assert open_pretrained(str(folder)).digest == found.digest


def test_a_feature_extractor_has_no_classes(hub: LoopbackHub, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=8
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "dino")
    processor = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 2}
    BitImageProcessor(**processor, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.2, 0.3]).save_pretrained(
        tmp_path / "dino"
    )
    hub.add_folder("owner/dino", tmp_path / "dino")
    found = open_pretrained("hf:owner/dino")
    assert found.classes == ()
    assert (found.config.image_size, found.preprocess.image_size, found.preprocess.fit) == ((56, 56), (32, 32), "crop")
    assert found.preprocess.crop_rate == 0.8
    assert "measured on images resized by bilinear interpolation; here they are resized bicubically" in found.notes[0]
    ours = found.module()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 56, 56), dtype=np.uint8))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.config.mean, found.config.std))
    with torch.no_grad():
        assert torch.allclose(
            ours.pool(ours.forward_features(images)), model((images / 255 - mean) / std).pooler_output, atol=1e-4
        )
        assert ours(images).tolist() == [[0.0], [0.0]]


def test_a_model_of_torchvisions_comes_by_its_address(
    hub: LoopbackHub, tmp_path: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    model = VisionTransformer(32, 8, num_layers=1, num_heads=1, hidden_dim=64, mlp_dim=128, num_classes=3).eval()
    torch.nn.init.normal_(model.heads.head.weight)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    content = (tmp_path / "vit.pth").read_bytes()
    name = f"vit_b_16-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    hub.repositories["plain/files"] = Repository({name: content})
    preset = SimpleNamespace(
        crop_size=[32], resize_size=[36], mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225],
        interpolation=InterpolationMode.BILINEAR,
    )  # fmt: skip
    best = SimpleNamespace(
        name="BEST", url=f"{hub.url}/plain/{name}", meta={"categories": list(PETS)}, transforms=lambda: preset
    )

    class Weights(dict[str, object]):
        __members__ = property(lambda self: self)
        DEFAULT = best

    monkeypatch.setattr("torchvision.models.get_model_weights", lambda name: Weights(BEST=best))
    found = open_pretrained("torchvision:vit_b_16")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    assert same(found.module()(images), model((images / 255 - mean) / std))
    assert (found.name, found.classes) == ("torchvision:vit_b_16.BEST", PETS)
    assert found.preprocess.crop_rate == 32 / 36
    assert "measured on images resized by bilinear interpolation" in found.notes[0]
    assert open_pretrained("torchvision:vit_b_16.BEST", offline=True).digest == found.digest
    with pytest.raises(ConfigError, match=r"torchvision's vit_b_16 has no weights named 'BST'. Did you mean 'BEST'"):
        open_pretrained("torchvision:vit_b_16.BST")


def test_weights_alone_are_recognised(tmp_path: Path, timm_vit, images: torch.Tensor) -> None:
    model, folder = timm_vit
    torch.save({"model": model.state_dict()}, tmp_path / "alone.pth")
    found = open_pretrained(str(tmp_path / "alone.pth"), named=OurConfig(num_heads=2))
    assert found.classes == ("class_0", "class_1", "class_2")
    assert found.card.provenance == {"weights": "alone.pth"}
    assert found.notes == ("alone.pth does not say what its 3 classes are called",)
    assert same(found.module()(images), model(scaled(images)))
    ours = open_pretrained(str(folder))
    arrays = {name: value.numpy() for name, value in to_google(ours.weights, 2).items()}
    np.savez(tmp_path / "google.npz", **arrays)
    google = open_pretrained(str(tmp_path / "google.npz"))
    assert google.digest == ours.digest
    assert google.config.mean == (0.5,) * 3
    assert same(google.module()(images), model(scaled(images)))


def test_a_run_is_read_by_its_path(digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_pretrained(str(digits_run))
    assert found.classes == tuple(map(str, range(10)))
    assert found.card.provenance == {"weights": digits_run.name}
    monkeypatch.chdir(digits_run.parent)
    monkeypatch.setattr("vitrail.runs.RUNS", Path())
    assert settled("last") == str(digits_run.relative_to(digits_run.parent))
    assert not is_published(digits_run)


@pytest.mark.parametrize(
    ("text", "error", "pattern"),
    [
        (
            "timm:vit_tniy_patch16_224",
            ConfigError,
            r"No timm model named 'vit_tniy_patch16_224'. Did you mean 'vit_tiny_p",
        ),
        ("timm:vit_tiny_patch16_224.augre", ConfigError, r"has no weights named 'augre'. Did you mean 'augreg"),
        ("timm:vit_tiny_patch16_18x2_224", ConfigError, r"timm has no weights for|No timm model named"),
        ("hf:owner/none", ConfigError, r"has no model owner/none, or it is private; check the name, or log in"),
        ("hf:none", ConfigError, r"'none' is no name of a repository on the hub; write it as owner/name"),
        ("torchvision:vit_b_17", ConfigError, r"named 'vit_b_17' can be used. Did you mean 'vit_b_16'. Use one"),
        ("hff:owner/model", ConfigError, r"'hff:owner/model' names no weights. Did you mean 'hf:'. Write timm:<name>"),
        ("nothing", ConfigError, r"^There are no weights at nothing .*; give a weights file, a folder, a run"),
        ("empty", ConfigError, r"There are no weights at empty"),
        ("missing.pth", ConfigError, r"There are no weights at missing.pth"),
    ],
)
def test_names_that_are_wrong(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: type[Exception], pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(error, match=pattern) as caught:
        open_pretrained(text)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith(".")


def damage(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"model_type": "bert"}, "model_type 'bert' is none of vit, deit, dinov2"),
        ({"num_attention_heads": 5}, "num_heads=5"),
        ({"num_attention_heads": "two"}, "num_heads='two' is not possible; use a whole number"),
        ({"id2label": ["a"]}, "has 3 outputs, not the 1 classes"),
        ({"id2label": {"0": "a"}}, "has 3 outputs, not the 1 classes"),
        ({"image_size": {"a": 1}}, "are damaged"),
        ({"hidden_act": "tanh"}, "hidden_act 'tanh' is none of"),
        ({"architecture": "no_such_net", "model_type": None}, "no_such_net"),
        ({"architecture": "resnet18", "model_type": None}, "The weights lack net.conv1.weight"),
        ({"architecture": "test_vit", "pretrained_cfg": 3}, "The description of hf is damaged: "),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(hf_vit, changes: dict[str, object], pattern: str) -> None:
    _, folder = hf_vit
    damage(folder, **changes)
    with pytest.raises((CheckpointError, ConfigError), match=pattern) as caught:
        open_pretrained(str(folder)).module()
    assert "\n" not in str(caught.value)


def test_files_that_are_damaged_or_missing_are_refused(hf_vit) -> None:
    _, folder = hf_vit
    for content in ("{", "[1]"):
        (folder / "preprocessor_config.json").write_text(content, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"preprocessor_config\.json (could not be read|is damaged)"):
            open_pretrained(str(folder))
    (folder / "preprocessor_config.json").unlink()
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or no safetensors file"):
        open_pretrained(str(folder))
    path.write_bytes(content)
    assert open_pretrained(str(folder)).preprocess.fit == "squash"
    path.unlink()
    with pytest.raises(
        CheckpointError, match=r"hf holds no model\.safetensors; give a folder with a model's config and"
    ):
        open_pretrained(str(folder))
