"""Data looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.api.inputs import optional_path, sources
from vitrail.auditing import AuditWishes, FullAudit, audit_data
from vitrail.classifier import Count
from vitrail.preparation import Request


def audit(
    data: str | Path | Sequence[str | Path],
    *,
    corrections: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    model: str | Path | None = None,
    labels: bool | None = None,
    html: str | Path | None = None,
    write_corrections: str | Path | None = None,
    preview: int | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Count | None = None,
) -> FullAudit:
    """What is wrong with the images of `data`: unreadable ones, copies, odd images, suspicious labels, rare classes.

    `corrections` are as for `train`, `settings` as for `evaluate`, and those on fit and size. `labels` says whether to
    check these, by default where that is quick, and `model`'s vectors then tell images apart. `html`,
    `write_corrections` (a new file) and `preview` (a number of images) say what to write; the rest is as for `embed`.
    Raises ConfigError and DataError as `train` does.
    """
    asked = Request(sources(data), settings=settings, corrections=optional_path(corrections), offline=offline)
    wishes = AuditWishes(model, labels, optional_path(html), optional_path(write_corrections), preview)
    return audit_data(asked, wishes, device, report)
