"""What every test can count on: no network, no colours, one width of terminal, the same examples in every run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Each changes what rich, typer or click print; typer reads GITHUB_ACTIONS to force colours.
TERMINAL = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "COLUMNS", "LINES", "TERMINAL_WIDTH", "GITHUB_ACTIONS")

# The hub and typer read the environment once, when they are imported, so it is set here, before any test is collected;
# a fixture alone would come too late. Processes that a test starts inherit it.
os.environ.update(OFFLINE)
for variable in TERMINAL:
    os.environ.pop(variable, None)
if "PYTEST_XDIST_WORKER" in os.environ:  # workers of many threads each would wait for one another
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

hypothesis.settings.register_profile("vitrail", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("vitrail")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same environment at the start of every test, whatever the one before it left."""
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    for name in TERMINAL:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data_folder() -> Callable[[str], Path]:
    """`data_folder("mnist")` is the path of $VITRAIL_DATA/mnist; without it the test is skipped, with the reason."""

    def find(name: str) -> Path:
        root = os.environ.get("VITRAIL_DATA")
        if not root:
            pytest.skip(f"needs the data set {name}; set VITRAIL_DATA to the folder that holds it")
        folder = Path(root, name)
        if not folder.is_dir():
            pytest.skip(f"needs the data set {name}, which is not in VITRAIL_DATA={root}")
        return folder

    return find
