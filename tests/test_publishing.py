"""A pushed run: what is uploaded, and what is not."""

import shutil
from pathlib import Path

import pytest
from loopback_hub import TOKEN, LoopbackHub

import vitrail
from vitrail.errors import CheckpointError, ConfigError


def test_a_run_is_pushed_without_its_images_and_paths(
    hub: LoopbackHub, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert vitrail.push(digits_run, "owner/digits") == f"{hub.url}/owner/digits"
    files = hub.repositories["owner/digits"].files
    assert {*files} == {"README.md", "model.json", "model.safetensors"}
    assert files["model.safetensors"] == (digits_run / "model.safetensors").read_bytes()
    readme = files["README.md"].decode()
    result = vitrail.Run(digits_run).result
    assert result is not None
    assert f"| test | {result['test']['images']} | {result['test']['accuracy']:.4f} |" in readme
    assert "- Data: digits, 1," in readme
    assert not any(str(digits_run.parent).encode() in content for content in files.values())


def test_what_cannot_be_pushed(hub: LoopbackHub, digits_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(digits_run, copy)
    (copy / "model.safetensors").unlink()
    journal = (copy / "journal.jsonl").read_text(encoding="utf-8")
    for known in ("per_class", "epochs"):
        (copy / "journal.jsonl").write_text(journal.replace(f'"{known}"', '"other"'), encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"journal\.jsonl holds no results as this version writes them; "):
            vitrail.push(copy, "owner/digits")
    (copy / "journal.jsonl").write_text(journal, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.safetensors could not be copied: No such file"):
        vitrail.push(copy, "owner/digits")
    (copy / "journal.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run has not finished; finish it first: vitrail train --resume"):
        vitrail.push(copy, "owner/digits")
    assert hub.requests == []
