"""The hub's files against a server on this machine: what arrives, what is cached, and each failure's sentence."""

import errno
import hashlib
from pathlib import Path

import pytest
from huggingface_hub import constants
from loopback_hub import TOKEN, LoopbackHub, Repository

from vitrail.errors import CheckpointError, ConfigError
from vitrail.hub import fetch_file, fetch_url, find_file, push_folder

LARGE = bytes(range(256)) * 40


@pytest.fixture
def small(hub: LoopbackHub) -> Repository:
    hub.repositories["owner/small"] = Repository({"config.json": b"{}", "model.safetensors": LARGE})
    return hub.repositories["owner/small"]


def test_a_file_is_downloaded_once_and_again_when_it_changes(hub: LoopbackHub, small: Repository) -> None:
    path = fetch_file("owner/small", "model.safetensors")
    assert path.read_bytes() == LARGE
    assert path.is_relative_to(constants.HF_HUB_CACHE)
    hub.requests.clear()
    assert fetch_file("owner/small", "model.safetensors") == path
    assert not [line for line in hub.requests if line.startswith('"GET')]
    small.files["model.safetensors"] = LARGE[::-1]
    assert fetch_file("owner/small", "model.safetensors").read_bytes() == LARGE[::-1]


def test_what_lies_in_the_cache_needs_no_network(
    hub: LoopbackHub, small: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_file("owner/small", "model.safetensors")
    hub.requests.clear()
    assert fetch_file("owner/small", "model.safetensors", offline=True) == path
    assert find_file("owner/small", "config.json", offline=True) is None
    assert hub.requests == []
    hub.down = True
    assert fetch_file("owner/small", "model.safetensors") == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_file("owner/small", "model.safetensors") == path


def test_a_file_may_be_missing(hub: LoopbackHub, small: Repository) -> None:
    assert find_file("owner/small", "other.json") is None
    fetch_file("owner/small", "config.json")
    hub.down = True
    assert find_file("owner/small", "other.json") is None
    hub.down = False
    with pytest.raises(CheckpointError, match=r"^owner/small on http://127.0.0.1:\d+ has no file other.json; give an"):
        fetch_file("owner/small", "other.json")


def by_hand(name: str) -> str:
    return (
        rf"this is offline; where there is a network, download http://127\.0\.0\.1:\d+/owner/small/resolve/main/{name} "
        "and the other files of that repository into a folder, and give that folder in place of the name$"
    )


def test_offline_says_what_to_download_by_hand(
    hub: LoopbackHub, small: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offline in (True, False):
        with pytest.raises(
            CheckpointError, match=r"^config.json of owner/small is not in the cache and " + by_hand("config.json")
        ):
            fetch_file("owner/small", "config.json", offline=offline)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.requests == []


def test_without_a_network_it_says_the_same_at_once(hub: LoopbackHub, small: Repository) -> None:
    hub.down = True
    with pytest.raises(
        CheckpointError, match=r"^http://127\.0\.0\.1:\d+ was not reached \(.*503.*\): " + by_hand("config.json")
    ):
        fetch_file("owner/small", "config.json")
    assert len(hub.requests) == 1


def test_a_server_that_is_not_there(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(constants, name, getattr(constants, name).replace(hub.url, "http://127.0.0.1:1"))
    with pytest.raises(CheckpointError, match=r"^http://127.0.0.1:1 was not reached \(.*refused.*\): this is offline"):
        fetch_file("owner/small", "config.json")


@pytest.mark.parametrize(
    "name", ["small", "owner/small/more", "owner/", "../small", "own er/x", "a--b/c", "http://x/y", ""]
)
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a repository on the hub; write it as owner/name"):
        fetch_file(name, "config.json")


def test_an_unknown_repository_is_wrong_usage(hub: LoopbackHub) -> None:
    with pytest.raises(ConfigError, match=r"has no model owner/none, or it is private; check the name, or log in with"):
        fetch_file("owner/none", "config.json")


def test_private_and_gated_repositories_need_a_token(
    hub: LoopbackHub, small: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.private = True
    with pytest.raises(ConfigError, match=r"or it is private; .*`hf auth login`, or set HF_TOKEN"):
        fetch_file("owner/small", "config.json")
    small.private, small.gated = False, True
    with pytest.raises(CheckpointError, match=r"owner/small is given .* accept its terms; .*/owner/small, and log in"):
        fetch_file("owner/small", "config.json")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    small.private = True
    assert fetch_file("owner/small", "config.json").read_bytes() == b"{}"


def test_a_download_that_is_cut_short_or_damaged_is_refused(hub: LoopbackHub, small: Repository) -> None:
    hub.shortened.add("model.safetensors")
    with pytest.raises(CheckpointError, match=r"^model.safetensors of owner/small could not be fetched: Consistency"):
        fetch_file("owner/small", "model.safetensors")
    hub.shortened.clear()
    hub.flipped.add("model.safetensors")
    with pytest.raises(CheckpointError, match=r"^model.safetensors of owner/small was damaged on its way here, and is"):
        fetch_file("owner/small", "model.safetensors")
    hub.flipped.clear()
    assert fetch_file("owner/small", "model.safetensors").read_bytes() == LARGE


@pytest.mark.slow  # huggingface_hub waits a second
def test_a_download_that_breaks_goes_on(hub: LoopbackHub, small: Repository) -> None:
    hub.broken_once.add("model.safetensors")
    assert fetch_file("owner/small", "model.safetensors").read_bytes() == LARGE
    assert len([line for line in hub.requests if line.startswith('"GET')]) == 2


def test_a_full_disk_says_where_to_make_room(small: Repository, files_of_at_most) -> None:
    with (
        files_of_at_most(5000),
        pytest.raises(CheckpointError, match="could not be written to the hub's cache: File too l"),
    ):
        fetch_file("owner/small", "model.safetensors")
    small.files["config.json"] = LARGE
    assert fetch_file("owner/small", "model.safetensors").read_bytes() == LARGE


def test_a_folder_is_pushed_and_fetched_again(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(LARGE)
    (folder / "README.md").write_text("---\ntags:\n- x\n---\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"does not let you push to owner/new; log in with .* that may write$"):
        push_folder(folder, "owner/new", private=True, message="Add a model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert push_folder(folder, "owner/new", private=True, message="Add a model") == f"{hub.url}/owner/new"
    assert hub.repositories["owner/new"].private
    assert hub.repositories["owner/new"].files == {
        path.name: path.read_bytes() for path in (folder / "model.safetensors", folder / "README.md")
    }
    assert fetch_file("owner/new", "model.safetensors").read_bytes() == LARGE
    (folder / "README.md").write_text("---\ntags:\n- y\n---\n", encoding="utf-8")
    push_folder(folder, "owner/new", private=True, message="Add it again")
    assert b"- y" in hub.repositories["owner/new"].files["README.md"]


def test_nothing_private_is_pushed_to_a_public_repository(
    hub: LoopbackHub, small: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "README.md").write_text("secret", encoding="utf-8")
    before = dict(small.files)
    with pytest.raises(ConfigError, match=r"^owner/small is there already, and is public; push to a new name"):
        push_folder(tmp_path, "owner/small", private=True, message="Add a model")
    assert small.files == before


def test_pushing_fails_with_one_sentence(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(CheckpointError, match="does not let you push to other/new; log in with"):
        push_folder(tmp_path, "other/new", private=False, message="Add a model")
    hub.down = True
    with pytest.raises(CheckpointError, match=r"^owner/new could not be pushed to http://127.*503"):
        push_folder(tmp_path, "owner/new", private=False, message="Add a model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"^owner/new could not be pushed to http://127.*offline mode"):
        push_folder(tmp_path, "owner/new", private=False, message="Add a model")


def test_a_file_at_an_address_is_checked_by_the_hash_in_its_name(hub: LoopbackHub) -> None:
    name = f"vit-{hashlib.sha256(LARGE).hexdigest()[:8]}.pth"
    hub.repositories["plain/files"] = Repository({name: LARGE, "vit-00000000.pth": LARGE})
    with pytest.raises(
        CheckpointError, match=rf"^{name} is not in .*checkpoints and this is offline; .* download http"
    ):
        fetch_url(f"{hub.url}/plain/{name}", offline=True)
    path = fetch_url(f"{hub.url}/plain/{name}")
    assert path.read_bytes() == LARGE
    assert fetch_url(f"{hub.url}/plain/{name}", offline=True) == path
    with pytest.raises(CheckpointError, match="is not the file that its name's hash stands for"):
        fetch_url(f"{hub.url}/plain/vit-00000000.pth")
    with pytest.raises(
        CheckpointError, match=r"vit-1.pth could not be read \(HTTP Error 404.*\): this is offline; where"
    ):
        fetch_url(f"{hub.url}/plain/vit-1.pth")


def test_the_disk_may_refuse_a_file_at_an_address(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.hub.download_url_to_file", full)
    with pytest.raises(
        CheckpointError, match="could not be written: No space left on device; make room, or set TORCH_HO"
    ):
        fetch_url(f"{hub.url}/plain/vit-12345678.pth")
