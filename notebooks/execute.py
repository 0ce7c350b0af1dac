"""Execute the notebooks and keep what they print and draw: `python notebooks/execute.py [NAME ...]`, no name for all.

Each runs in an empty folder of its own, with the Python that runs this script; what it needs is in the `test` extra.
Nothing is written of a notebook that fails, that says something on stderr, or whose outputs tell of this machine.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets import default

FOLDER = Path(__file__).parent
SECONDS = 1800  # most that a cell may take here, where other work may be going on
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class ThisPython(AsyncKernelManager):
    """Kernels of the interpreter that runs this, not of one that was installed under the same name once."""

    @default("kernel_spec_manager")
    def _no_installed_kernels(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])


def execute(notebook: NotebookNode, folder: Path, seconds: int = SECONDS) -> NotebookNode:
    """The notebook with the outputs of a run in `folder`.

    Raises CellExecutionError for a cell that fails, CellTimeoutError for one that takes more than `seconds`.
    """
    result = deepcopy(notebook)
    client = NotebookClient(
        result,
        kernel_manager_class=ThisPython,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        timeout=seconds,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    result.metadata = nbformat.from_dict(METADATA)  # the client writes versions into it
    return result


def printed(notebook: NotebookNode) -> list[str]:
    """The texts of all outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") for output in outputs]
    return texts + [str(text) for output in outputs for kind, text in output.get("data", {}).items() if "text" in kind]


def complaints(notebook: NotebookNode) -> list[str]:
    """What cells wrote to stderr: warnings, as a notebook that goes well writes nothing there."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.get("name") == "stderr"]


def secrets(notebook: NotebookNode, folder: Path) -> list[str]:
    """What outputs tell of this machine: its folders, its user."""
    private = {str(folder), tempfile.gettempdir(), str(Path.home()), str(FOLDER.resolve().parent), getpass.getuser()}
    texts = printed(notebook)
    return sorted(word for word in private if len(word) > 4 and any(word in text for text in texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="notebooks, such as attention-by-hand; all of them without a name")
    chosen = parser.parse_args().names or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    for name in chosen:
        path = FOLDER / f"{Path(name).stem}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            result = execute(notebook, Path(folder))
            wrong = complaints(result) + secrets(result, Path(folder))
        if wrong:
            sys.exit(f"{path.name} is left as it was; its outputs hold {wrong}")
        nbformat.write(result, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
