"""A run as Python has it: its directory and its verbs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.api.answers import embed, evaluate, predict
from vitrail.api.inside import report
from vitrail.api.models import load
from vitrail.classifier import Classifier
from vitrail.config import RunConfig
from vitrail.embedding import Embeddings
from vitrail.labelling import Predictions
from vitrail.reporting.run_figures import Picture, run_html
from vitrail.reporting.run_report import Report
from vitrail.runs import find_run


class Run:
    """A run's directory and its verbs."""

    def __init__(self, path: str | Path) -> None:
        self.directory = find_run(path)
        self.path = self.directory.path

    @property
    def config(self) -> RunConfig:
        """Every setting of the run."""
        return self.directory.config()

    @property
    def result(self) -> dict[str, Any] | None:
        """What `vitrail train --json` printed, or None if the run has not finished."""
        return self.directory.result()

    def classifier(self, device: str = "auto") -> Classifier:
        """The run's best model, ready to predict."""
        return load(self.path, device)

    def evaluate(self, data: str | None = None, split: str = "test", device: str = "auto") -> dict[str, Any]:
        """As `vitrail.evaluate`."""
        return evaluate(self.path, data, split=split, device=device)

    def predict(self, images: Sequence[str | Path] | str | Path, device: str = "auto") -> Predictions:
        """As `vitrail.predict`."""
        return predict(self.path, images, device=device)

    def embed(
        self, images: Sequence[str | Path] | str | Path, output: str | Path | None = None, device: str = "auto"
    ) -> Embeddings:
        """As `vitrail.embed`."""
        return embed(self.path, images, output=output, device=device)

    def report(self, *, no_images: bool = False, output: str | Path | None = None, device: str = "auto") -> Report:
        """As `vitrail.report`."""
        return report(self.path, no_images=no_images, output=output, device=device)

    def figures(self) -> dict[str, Picture]:
        """The pictures of the run by name, such as "curves" and "confusion"; a notebook shows each as it is."""
        return {path.stem: Picture(path) for path in sorted(self.directory.figures_path.glob("*.png"))}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return run_html(str(self.path), self.result, self.figures())
