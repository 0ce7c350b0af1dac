"""A run's model as others get it: its files and a model card, pushed to the hub."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

from vitrail.checkpoint import read_card, write_atomically
from vitrail.errors import CheckpointError, ConfigError
from vitrail.hub import push_folder
from vitrail.reporting.model_card import model_card
from vitrail.reporting.report_facts import read_facts
from vitrail.runs import RunDirectory


def push_run(directory: RunDirectory, repository: str, *, private: bool) -> str:
    """Upload a finished run's model with its card; gives the repository's address.

    Raises ConfigError for a run that has not finished and for an impossible name, CheckpointError if files are missing
    or the hub refuses.
    """
    if directory.result() is None:
        raise ConfigError(f"{directory.path} has not finished; finish it first: {directory.resume_command()}")
    read_card(directory.path)  # which says what is wrong with it
    text = _card(directory, repository)
    with tempfile.TemporaryDirectory(prefix="vitrail-") as folder:
        try:
            for name in ("model.safetensors", "model.json"):
                shutil.copyfile(directory.path / name, Path(folder, name))
        except OSError as error:
            raise CheckpointError(f"{error.filename} could not be copied: {error.strerror}") from error
        write_atomically(Path(folder, "README.md"), text)
        return push_folder(Path(folder), repository, private=private, message="Add a model trained with Vitrail")


def _card(directory: RunDirectory, repository: str) -> str:
    facts = read_facts(directory)
    try:
        if facts.result is not None and facts.card is not None:
            return model_card(facts, repository)
    except (KeyError, TypeError, ValueError, AttributeError):  # of a result that says other things, or in other words
        pass
    raise CheckpointError(
        f"{directory.journal.path} holds no results as this version writes them; train the model again: "
        f"vitrail train --recipe {shlex.quote(str(directory.path))}"
    )
