"""What is odd about how images are stored: their size, shape, mode and orientation, by the headers of their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitrail.data.findings import NUM_NAMED, Finding, Kind, count_of, of_split
from vitrail.data.headers import Header
from vitrail.errors import some

SIZE_FACTOR = 4.0  # of the median side, up or down, that is odd
RATIO_FACTOR = 2.0  # of the median elongation
MAX_DEVIATIONS = 5.0  # robust ones: where all sizes occur, none is odd
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)

_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "La": "grey with transparency",
    "PA": "palette with transparency",
    "P": "palette",
    "RGB": "RGB",
    "RGBA": "RGB with transparency",
    "RGBa": "RGB with transparency",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "LAB": "LAB",
    "HSV": "HSV",
    "I": "32-bit grey",
    "F": "floating point",
}


def mode_name(mode: str) -> str:
    """What Pillow's mode is called: "grey", "RGB with transparency", "16-bit grey"."""
    return _MODES.get(mode, "16-bit grey" if mode.startswith("I;16") else mode)


def stored_findings(headers: Mapping[str, Mapping[str, Header]]) -> list[Finding]:
    """What is odd among the headers of a set, by split and name: compared with all, told by split."""
    places = [(split, name) for split, found in headers.items() for name in found]
    every = [header for found in headers.values() for header in found.values()]
    if not every:
        return []
    rows, columns = np.array([(header.rows, header.columns) for header in every], np.float64).T
    side = np.sqrt(rows * columns)
    elongation = np.maximum(rows / columns, columns / rows)
    findings = [
        _odd("size", places[index], every[index], f"most are about {np.median(side):.0f} pixels wide and high")
        for index in _outliers(side, SIZE_FACTOR)
    ]
    findings += [
        _odd("aspect_ratio", places[index], every[index], f"most are 1 to {np.median(elongation):.2g} or less long")
        for index in _outliers(elongation, RATIO_FACTOR)
        if elongation[index] > np.median(elongation)
    ]
    findings += _modes(headers)
    for split, found in headers.items():
        turned = [name for name, header in found.items() if header.orientation != 1]
        if turned:
            told = f"Stored turned{of_split(split)}, and shown upright by EXIF as is done here"
            findings.append(_listed("exif_rotated", split, turned, told, len(found)))
    return findings


def stored_statistics(headers: Mapping[str, Header]) -> dict[str, Any]:
    """Quantiles of rows, columns and aspect ratio (columns by rows), and how many images have each mode."""
    if not headers:
        return {}
    found = [*headers.values()]
    rows, columns = np.array([(header.rows, header.columns) for header in found], np.float64).T
    values = {"rows": rows, "columns": columns, "aspect_ratio": columns / rows}
    quantiles = {
        key: {f"{rate:g}": round(float(np.quantile(of, rate)), 3) for rate in QUANTILES} for key, of in values.items()
    }
    return {**quantiles, "modes": dict(Counter(mode_name(header.mode) for header in found).most_common())}


def _outliers(values: np.ndarray, factor: float) -> list[int]:
    logs = np.log(values)
    distance = np.abs(logs - np.median(logs))
    limit = max(np.log(factor), MAX_DEVIATIONS * 1.4826 * float(np.median(distance)))
    return np.flatnonzero(distance > limit + 1e-9).tolist()


def _odd(kind: Kind, place: tuple[str, str], header: Header, usual: str) -> Finding:
    split, name = place
    size = {"rows": header.rows, "columns": header.columns}
    return Finding(kind, split, (name,), f"{name} is {header.columns}x{header.rows}; {usual}", size)


def _modes(headers: Mapping[str, Mapping[str, Header]]) -> list[Finding]:
    counts = Counter(mode_name(header.mode) for found in headers.values() for header in found.values())
    usual = min(counts, key=lambda name: (-counts[name], name))
    findings: list[Finding] = []
    for split, found in headers.items():
        by_mode: dict[str, list[str]] = {}
        for name, header in found.items():
            by_mode.setdefault(mode_name(header.mode), []).append(name)
        for mode in sorted({*by_mode} - {usual}):
            told = f"Stored as {mode}{of_split(split)}, where most are {usual}"
            findings.append(_listed("mode", split, by_mode[mode], told, len(found), mode=mode))
    return findings


def _listed(kind: Kind, split: str, names: Sequence[str], told: str, total: int, **details: Any) -> Finding:
    number = f"{len(names):,} of {count_of(total, 'image')}"
    return Finding(kind, split, tuple(names), f"{told}: {number} ({some(names, NUM_NAMED)})", details)
