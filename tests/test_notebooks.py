"""The notebooks: their form, and in the slow suite every cell and every answer of theirs."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("attention-by-hand", "patches-to-logits", "published-faults", "figure-7", "five-settings", "vit-against-cnn")
MOST_BYTES = 300_000
INSTALL = """\
# On Colab: installs Vitrail where it is missing. Where it is there, nothing is installed and no network is needed.
import importlib.util

if importlib.util.find_spec("vitrail") is None:
    %pip install --quiet vitrail"""
# Put before the first cell: a notebook must not reach beyond this machine, which a kernel would not say of itself.
OFFLINE = """\
import socket

def refuse(self, address):
    raise OSError(f"a notebook asked for {address}")

socket.socket.connect = socket.socket.connect_ex = refuse"""


def execution() -> ModuleType:
    """notebooks/execute.py, which stands outside the package."""
    spec = spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=NAMES)
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    return nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4)


def texts(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield from (str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/"))


def answers(text: str) -> list[str]:
    """The code of the folded answers in a cell of text."""
    folded = re.findall(r"<details>.*?</details>", text, flags=re.DOTALL)
    return [code for answer in folded for code in re.findall(r"```python\n(.*?)```", answer, flags=re.DOTALL)]


def test_every_notebook_is_listed_here_and_in_the_readme() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[[\w-]+\]\(([\w-]+)\.ipynb\)", readme, flags=re.MULTILINE) == list(NAMES)


def test_it_is_a_plain_notebook_that_says_nothing_of_where_it_was_executed(notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == execution().METADATA
    identifiers = [cell.id for cell in notebook.cells]
    assert len({*identifiers}) == len(identifiers)
    assert not [cell.id for cell in notebook.cells if cell.metadata]
    paths = re.compile(r"(?<![\w.])(/(home|root|tmp|work|Users|usr|var|content|private)/|[A-Z]:\\)")
    assert not [text for text in texts(notebook) if paths.search(text)]


def test_it_begins_with_a_title_and_the_cell_that_installs(notebook: NotebookNode) -> None:
    title, install, *rest = notebook.cells
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert install.source == INSTALL
    assert not [cell.id for cell in rest if "pip install" in cell.source or "!pip" in cell.source]


def test_its_title_links_to_every_other_notebook(notebook: NotebookNode) -> None:
    linked = {*re.findall(r"\]\(([\w-]+)\.ipynb\)", notebook.cells[0].source)}
    assert len(linked) == len(NAMES) - 1
    assert linked < {*NAMES}


def test_its_links_lead_somewhere(notebook: NotebookNode) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", "\n".join(cell.source for cell in notebook.cells))
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (FOLDER / link).exists()] == []


def test_its_outputs_are_kept_complete_and_small(notebook: NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert kinds
    assert "error" not in kinds
    assert execution().complaints(notebook) == []
    assert len(nbformat.writes(notebook).encode()) < MOST_BYTES


def test_its_pictures_can_be_opened(notebook: NotebookNode) -> None:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()


def test_every_exercise_has_a_folded_answer(notebook: NotebookNode) -> None:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.count("<details><summary>Answer</summary>\n\n") == text.count("\n\n</details>")
    assert text.count("<details>") == text.count("</details>")
    assert len(answers(text)) >= 2, "a notebook has exercises, with code that answers them"
    for code in answers(text):
        compile(code, "answer", "exec")


@pytest.mark.slow
def test_every_cell_and_every_answer_runs_without_a_warning(notebook: NotebookNode, tmp_path: Path) -> None:
    cells = [new_code_cell(OFFLINE)]
    for cell in notebook.cells:
        cells += [cell, *(new_code_cell(code) for code in answers(cell.source) if cell.cell_type == "markdown")]
    notebook.cells = cells
    executed = execution().execute(notebook, tmp_path, seconds=180)
    assert execution().complaints(executed) == []
