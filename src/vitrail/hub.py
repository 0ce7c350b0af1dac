"""Files on the Hugging Face hub, and at plain addresses: fetched into the usual caches, and pushed.

HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE count as in every program that uses huggingface_hub; TORCH_HOME as in
every one that uses torch.hub. Whatever goes wrong is one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import re
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from vitrail.errors import CheckpointError, ConfigError, VitrailError

HASH_CHUNK = 2**24

Choose = Callable[[Sequence[str]], Sequence[str]]  # paths of a repository's files -> those that are wanted

logger = logging.getLogger(__name__)


def fetch_file(repository: str, file: str, *, offline: bool = False) -> Path:
    """The path of a repository's file, which is downloaded unless the newest version lies in the cache.

    With `offline`, or without a network, a version that lies there will do.
    Raises ConfigError if there is no such repository, CheckpointError if the file cannot be had.
    """
    path = find_file(repository, file, offline=offline)
    if path is None:
        if _is_offline(offline):
            raise CheckpointError(f"{file} of {repository} is not in the cache and {_by_hand(repository, file)}")
        raise CheckpointError(f"{repository} on {_endpoint()} has no file {file}; give another repository")
    return path


def find_file(repository: str, file: str, *, offline: bool = False) -> Path | None:
    """As `fetch_file`, but None where the repository, or offline the cache, has no such file.

    owner/name@revision is one version of a repository, not the newest.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, pinned = repository.partition("@")
    revision = pinned or None
    _check_name(repository)
    with _sentences(repository, file):
        if _is_offline(offline):
            try:
                return Path(hf_hub_download(repository, file, revision=revision, local_files_only=True))
            except LocalEntryNotFoundError:
                return None
        try:
            # It fails at once where hf_hub_download tries for a minute.
            get_hf_file_metadata(hf_hub_url(repository, file, revision=revision))
        except EntryNotFoundError:
            pass  # hf_hub_download will write it down, for when there is no network
        except Exception as error:
            cached = try_to_load_from_cache(repository, file, revision=revision)
            if cached is None or not _is_network(error):
                raise
            return Path(cached) if isinstance(cached, str) else None  # known not to be there
        try:
            path = Path(hf_hub_download(repository, file, revision=revision))
        except EntryNotFoundError:
            return None
    _check_hash(path, repository, file)
    return path


def fetch_dataset(repository: str, choose: Choose, *, offline: bool = False) -> Path:
    """The folder in the hub's cache with the files of a data set's repository that `choose` picks from all of them.

    They are downloaded unless they lie there; with `offline`, or without a network, `choose` sees those that lie there.
    Raises ConfigError if there is no such repository, CheckpointError if a file cannot be had, and as `choose` does.
    """
    from huggingface_hub import HfApi, hf_hub_download

    name, _, pinned = repository.partition("@")
    _check_name(name)
    label = f"datasets/{name}"
    if not _is_offline(offline):
        try:
            with _sentences(label, "its list of files"):
                facts = HfApi().dataset_info(name, revision=pinned or None)
        except CheckpointError as error:
            if error.__cause__ is None or not _is_network(error.__cause__):
                raise
            if _cached_dataset(name, pinned) is None:
                raise CheckpointError(
                    f"{_endpoint()} was not reached ({_first_line(error.__cause__)}), and {name} is not in the cache; "
                    f"where there is a network, {_download_all(label)}"
                ) from error
        else:
            files = list(choose([sibling.rfilename for sibling in facts.siblings or ()]))
            logger.info("%s", f"Fetching {len(files):,} file{'s' * (len(files) != 1)} of {name} from {_endpoint()}")
            folder = Path()
            for file in files:
                with _sentences(label, file):
                    path = Path(hf_hub_download(name, file, repo_type="dataset", revision=pinned or None))
                _check_hash(path, label, file)
                folder = path.parents[file.count("/")]
            return folder
    cached = _cached_dataset(name, pinned)
    if cached is None:
        raise CheckpointError(
            f"{name} is not in the cache, and this is offline; where there is a network, {_download_all(label)}"
        )
    choose(sorted(path.relative_to(cached).as_posix() for path in cached.rglob("*") if path.is_file()))
    return cached


def fetch_dataset_card(repository: str, *, offline: bool = False) -> dict[str, Any]:
    """What the card of a data set's repository says at its head, as YAML; empty where there is none.

    Raises as `fetch_dataset` does.
    """
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    cards: list[str] = []

    def choose(files: Sequence[str]) -> Sequence[str]:
        cards[:] = [file for file in files if file == "README.md"]
        return cards

    folder = fetch_dataset(repository, choose, offline=offline)
    try:
        return metadata_load(folder / "README.md") or {} if cards else {}
    except (OSError, ValueError, YAMLError):
        return {}


def _cached_dataset(name: str, pinned: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=pinned or None, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def push_folder(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Upload the files of a folder to a model repository, made if it is not there; gives its address.

    Raises ConfigError for an impossible name, or a public repository where `private` is asked for, and CheckpointError
    if the hub refuses or is not reached.
    """
    from huggingface_hub import HfApi

    _check_name(repository)
    api = HfApi()
    with _sentences(repository, None):
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ConfigError(
                f"{repository} is there already, and is public; push to a new name, or make it private there"
            )
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return f"{_endpoint()}/{repository}"


def fetch_url(url: str, *, offline: bool = False) -> Path:
    """The path of a file at an address that ends in -<hash>.<suffix>, as torch.hub's do, in torch.hub's cache.

    Raises CheckpointError if it cannot be had, or is not what its hash says.
    """
    from torch.hub import download_url_to_file, get_dir

    name = url.rpartition("/")[2]
    path = Path(get_dir(), "checkpoints", name)
    if path.is_file():
        return path
    if _is_offline(offline):
        raise CheckpointError(f"{name} is not in {path.parent} and {_by_hand_at(url, path)}")
    found = re.search(r"-([0-9a-f]{8,64})\.", name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(path), None if found is None else found.group(1), progress=False)
    except OSError as error:
        if error.errno in _DISK:
            raise CheckpointError(
                f"{path} could not be written: {error.strerror}; make room, or set TORCH_HOME"
            ) from error
        raise CheckpointError(f"{url} could not be read ({_first_line(error)}): {_by_hand_at(url, path)}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{url} is not the file that its name's hash stands for; try again later") from error
    return path


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS})


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _is_offline(offline: bool) -> bool:
    from huggingface_hub import constants

    return offline or constants.HF_HUB_OFFLINE


def _check_name(repository: str) -> None:
    """Raise ConfigError unless it is the name of a repository, owner/name."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository, re.ASCII) or ".." in repository or "--" in repository:
        raise ConfigError(f"{repository!r} is no name of a repository on the hub; write it as owner/name")


def _is_network(error: BaseException) -> bool:
    """Whether the hub was not reached, or had no time; huggingface_hub's own errors are answers of the hub."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    # The HTTP library differs between versions of huggingface_hub; its errors are the base of the hub's.
    return isinstance(error, (HfHubHTTPError.__bases__[0], OfflineModeIsEnabled, ConnectionError, TimeoutError))


@contextlib.contextmanager
def _sentences(repository: str, file: str | None) -> Generator[None]:
    """One sentence for whatever huggingface_hub raises, while fetching `file` or, without one, pushing.

    Its progress bars are for terminals: elsewhere none is drawn.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hidden:
        disable_progress_bars()
    try:
        yield
    except VitrailError:
        raise
    except Exception as error:
        raise _translated(error, repository, file) from error
    finally:
        if hidden:
            enable_progress_bars()


def _translated(error: Exception, repository: str, file: str | None) -> VitrailError:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{repository} is given to those only who accept its terms; accept them at {_endpoint()}/{repository}, "
            f"and {login}"
        )
    if status in (401, 403) and file is None:
        return CheckpointError(
            f"{_endpoint()} does not let you push to {repository}; {login} to a token that may write"
        )
    if isinstance(error, RepositoryNotFoundError):
        kind = "data set" if repository.startswith("datasets/") else "model"
        name = repository.removeprefix("datasets/")
        return ConfigError(f"{_endpoint()} has no {kind} {name}, or it is private; check the name, or {login}")
    if status in (401, 403):
        return CheckpointError(f"{_endpoint()} does not let you read {repository}; {login} to a token that may")
    if isinstance(error, OSError) and error.errno in _DISK:
        return CheckpointError(
            f"{file or repository} could not be written to the hub's cache: {error.strerror}; make room, or set "
            "HF_HOME to a folder on another disk"
        )
    if file is None:
        return CheckpointError(f"{repository} could not be pushed to {_endpoint()}: {_first_line(error)}")
    if _is_network(error):
        return CheckpointError(f"{_endpoint()} was not reached ({_first_line(error)}): {_by_hand(repository, file)}")
    return CheckpointError(f"{file} of {repository} could not be fetched: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _by_hand(repository: str, file: str) -> str:
    """How to do without the network."""
    return (
        f"this is offline; where there is a network, download {_endpoint()}/{repository}/resolve/main/{file} and the "
        "other files of that repository into a folder, and give that folder in place of the name"
    )


def _download_all(label: str) -> str:
    return f"download the files of {_endpoint()}/{label} into a folder, and give that folder in place of the name"


def _by_hand_at(url: str, path: Path) -> str:
    return f"this is offline; where there is a network, download {url}, and put it into {path.parent}"


def _check_hash(path: Path, repository: str, file: str) -> None:
    """Raise CheckpointError if a large file is not what its name in the cache, the hub's hash, stands for."""
    stored = path.resolve()
    if not re.fullmatch("[0-9a-f]{64}", stored.name):
        return
    digest = hashlib.sha256()
    with stored.open("rb") as content:
        for chunk in iter(lambda: content.read(HASH_CHUNK), b""):
            digest.update(chunk)
    if digest.hexdigest() != stored.name:
        stored.unlink()
        raise CheckpointError(f"{file} of {repository} was damaged on its way here, and is deleted; try again")
