"""Images that belong into one split: what users say belongs together, and what is the same to the eye.

A group's name is a text; "" stands for none, so that such an image is one for itself. Equal names are one group, also
across classes, across published splits and across sets that are joined.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from vitrail.data.headers import read_header
from vitrail.data.records import ReadOptions, Records
from vitrail.errors import ConfigError, DataError, some, suggest

BURST_SECONDS = 60.0  # between photographs of one camera that show, most likely, one scene

_KINDS = ("folder", "column", "exif_time", "regex:PATTERN")
_REGEX = "regex:"
_NUM_READERS = 8  # headers are waited for, hardly computed with

logger = logging.getLogger(__name__)


def check_group(group: str | None, group_column: str | None) -> None:
    """Raise ConfigError for a `data.group` that is no way of grouping, or does not go with `data.group_column`."""
    if group is None:
        return
    if group not in _KINDS[:-1] and not group.startswith(_REGEX):
        raise ConfigError(f"data.group={group} is not possible.{suggest(group, _KINDS)} Use one of {', '.join(_KINDS)}")
    if group.startswith(_REGEX):
        try:
            num_groups = re.compile(group.removeprefix(_REGEX)).groups
        except re.error as error:
            raise ConfigError(f"data.group={group} is no regular expression: {error}") from None
        if not num_groups:
            raise ConfigError(
                f"data.group={group} has no part in brackets; put them around what is equal within a group, "
                "such as regex:(patient\\d+)"
            )
    if group == "column" and group_column is None:
        raise ConfigError("data.group=column needs the name of a column; give it as --set data.group_column=NAME")
    if group != "column" and group_column is not None:
        raise ConfigError(
            f"data.group={group} and data.group_column={group_column} are two ways to group; leave one of them out"
        )


def with_groups(
    records: Records,
    classes: Sequence[str],
    options: ReadOptions,
    split: str,
    bursts: Callable[[], Mapping[str, Sequence[str]]],
) -> Records:
    """The records of a published split with the groups that `options` ask for; as they are where none are asked for.

    `bursts` gives those by time, of all splits. Images without a group are counted in the log. Raises ConfigError for a
    column where there is none, and where no image to train on has a group.
    """
    group = options.group
    if group is None or (group == "column" and records.groups is not None):
        return records
    if group == "column":
        raise ConfigError("data.group=column is for tables; files have folder, exif_time and regex:PATTERN")
    if group == "folder":
        names = _by_folder(records, classes)
    elif group == "exif_time":
        names = bursts()[split]
    else:
        names = _by_pattern(records, re.compile(group.removeprefix(_REGEX)))
    without = [name for name, own in zip(records.names, names, strict=True) if not own]
    if len(without) == len(names) and split in ("train", "all"):
        raise ConfigError(f"data.group={group} finds a group for none of the {len(names):,} images ({some(without)})")
    if without:
        images = f"{len(without):,} of {len(names):,} images{'' if split == 'all' else f' of {split}'}"
        logger.warning("%s", f"data.group={group} finds no group for {images} ({some(without)}); each is one by itself")
    return replace(records, groups=names)


def interval_groups(groups: Sequence[str] | None) -> list[str] | None:
    """The groups for intervals, where every image needs one: an image without any is one by itself."""
    return None if groups is None else [name or f"\0{index}" for index, name in enumerate(groups)]


def _by_folder(records: Records, classes: Sequence[str]) -> list[str]:
    """The first folder below that of the class; of images that lie in none of that name, all their folders."""
    groups: list[str] = []
    for name, label in zip(records.names, records.labels, strict=True):
        folders = name.split("/")[:-1]
        own = classes[int(label)].split("/") if label.ndim == 0 else ["/"]
        ends = (end for end in range(len(own), len(folders) + 1) if folders[end - len(own) : end] == own)
        end = next(ends, None)
        groups.append("/".join(folders if end is None else folders[end : end + 1]))
    return groups


def _by_pattern(records: Records, pattern: re.Pattern[str]) -> list[str]:
    """What the first brackets of the pattern hold, wherever in the image's name it matches."""
    matches = map(pattern.search, records.names)
    return ["" if match is None else match[1] or "" for match in matches]


def bursts_of(splits: Mapping[str, Records]) -> dict[str, list[str]]:
    """The camera and the time of the first photograph of each burst: those of one camera shortly after one another.

    Bursts go over splits; an image whose header tells no time has none.
    """
    places = [(split, index) for split, records in splits.items() for index in range(len(records))]
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        taken = list(pool.map(_taken, [splits[split] for split, _ in places], [index for _, index in places]))
    groups = {split: [""] * len(records) for split, records in splits.items()}
    burst, camera, last = "", "", -float("inf")
    for (own, seconds), (split, index) in sorted((at, place) for at, place in zip(taken, places, strict=True) if at):
        if own != camera or seconds - last > BURST_SECONDS:
            burst = f"{own} {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}".strip()
        camera, last = own, seconds
        groups[split][index] = burst
    return groups


def _taken(records: Records, index: int) -> tuple[str, float] | None:
    """The camera's model, "" where it is not told, and the seconds at which it took the picture; None if not known."""
    try:
        header = read_header(records.read(index), records.names[index])
        time = datetime.strptime((header.exif_time or "")[:19], "%Y:%m:%d %H:%M:%S")
    except (DataError, ValueError):  # a damaged file is named when it is decoded
        return None
    return header.camera or "", time.replace(tzinfo=UTC).timestamp()
