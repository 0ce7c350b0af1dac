"""From what a user writes as DATA to the tar shards that are meant, and the split of each.

Braces stand for numbers and lists, as in train-{000000..000009}.tar and {train,test}.tar; * and ? for names that are
there. A shard is of the split whose name stands in its own, between dots, dashes or underscores, best at the beginning.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from vitrail.data.folders import SPLIT_FOLDERS, holds_class_folders
from vitrail.data.remote import is_url, list_urls, shown_url
from vitrail.errors import ConfigError, DataError, some

MAX_SHARDS = 100_000  # what braces may stand for: more is a slip

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_TAR = re.compile(r".*\.(tar(\.(gz|bz2|xz|zst|lz4|z))?|tgz|tbz2?|txz)\}?", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"(.*?)(\d+)(?:-of-(\d+))?(\.tar)", re.IGNORECASE)
_SPLIT = re.compile(rf"(?:^|[-_.])({'|'.join(sorted(SPLIT_FOLDERS, key=len, reverse=True))})(?=[-_.])", re.IGNORECASE)

Splits = dict[str, list[str]]


def names_shards(data: str | Path) -> bool:
    """Whether `data` is written as tar shards are: a path, a pattern or a URL that ends in .tar, a folder at a URL."""
    text = str(data)
    if is_url(text):
        text = text.partition("?")[0] if text.lower().startswith("http") else text
        return text.endswith("/") or _is_tar(text)
    return _is_tar(text) or text.startswith("pipe:")


def holds_shards(folder: Path) -> bool:
    """Whether a folder's images are in tar files: those beside class folders are what these were unpacked from."""
    return bool(_split_folder(folder)) and not holds_class_folders(folder)


def find_shards(data: str | Path) -> Splits:
    """The shards of each split, in the order of their numbers and names; "all" where no shard's name tells a split.

    Raises ConfigError for what does not exist, DataError for a shard that is missing among numbered ones, and for tar
    files that are compressed.
    """
    text = str(data)
    if text.startswith("pipe:"):
        raise ConfigError(f"{text} would start a program; name tar files, or a URL of them")
    if not is_url(text) and os.path.isdir(text):
        splits = _split_folder(Path(text))
        places = [place for listed in splits.values() for place in listed]
        _check_numbers(places)
    elif not is_url(text) and os.path.exists(text):
        places, splits = [text], {"all": [text]}
    else:
        places = _expand(text)
        splits = {"all": places} if places == [text] else split_shards(places)
    packed = [place for place in places if not _last(place).lower().endswith(".tar")]
    if packed:
        raise DataError(
            f"{_shown(packed[0])} is compressed, so that its images cannot be read one by one; "
            "unpack it to a plain .tar"
        )
    return splits


def split_shards(places: Sequence[str]) -> Splits:
    """The shards of each split by their names; "all" where none tells one.

    Raises DataError where some tell a split and others do not.
    """
    splits: Splits = {}
    for place in places:
        found = _SPLIT.search(_last(place))
        splits.setdefault(SPLIT_FOLDERS[found[1].lower()] if found else "", []).append(place)
    unnamed = splits.pop("", [])
    if not splits:
        return {"all": list(places)}
    if unnamed:
        named = next(iter(splits.values()))[0]
        raise DataError(
            f"{_shown(named)} names its split and {some([_shown(place) for place in unnamed])} "
            f"do{'es' * (len(unnamed) == 1)} not; name all of them train-*, validation-*, test-*, or none"
        )
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def expand_braces(pattern: str) -> list[str]:
    """The texts that a pattern with braces stands for: a{1..3} is a1, a2, a3, and {08..10} counts 08, 09, 10.

    Raises ConfigError where the numbers count down, or there are more than MAX_SHARDS.
    """
    waiting, done = [pattern], list[str]()
    while waiting:
        text = waiting.pop()
        found = _BRACES.search(text)
        if found is None:
            done.append(text)
            continue
        if found[3] is not None:
            parts = found[3].split(",")
        else:
            first, last = int(found[1]), int(found[2])
            width = max(len(found[1]), len(found[2])) if found[1].startswith("0") else 0
            if first > last or last - first >= MAX_SHARDS:
                wrong = "counts down" if first > last else f"stands for more than {MAX_SHARDS:,} shards"
                raise ConfigError(
                    f"{found[0]} in {_shown(pattern)} {wrong}; write the first number, two dots, the last"
                )
            parts = [f"{number:0{width}d}" for number in range(first, last + 1)]
        waiting += [text[: found.start()] + part + text[found.end() :] for part in reversed(parts)]
        if len(waiting) + len(done) > MAX_SHARDS:
            raise ConfigError(f"{_shown(pattern)} stands for more than {MAX_SHARDS:,} shards; name fewer")
    return list(dict.fromkeys(done))


def dataset_name(data: str | Path) -> str:
    """What a set of these shards is called: a shard's name, what comes before the numbers, or the folder's name."""
    text = shown_url(str(data)) if is_url(data) else os.path.abspath(data)
    parts = [re.sub(r"[^\w.-]+", "-", part).strip("-_.") for part in re.split(r"[/\\]", re.sub(r"[*?\[{].*", "", text))]
    stem = re.sub(r"\.tar$", "", parts[-1], flags=re.IGNORECASE)
    return next((part for part in (stem, *reversed(parts)) if part and part.lower() not in SPLIT_FOLDERS), "shards")


def _is_tar(text: str) -> bool:
    return _TAR.fullmatch(text) is not None


def _shown(place: str) -> str:
    return shown_url(place) if is_url(place) else place


def _last(place: str) -> str:
    """A shard's own name."""
    return (shown_url(place).rpartition("/")[2]) if is_url(place) else Path(place).name


def _by_number(place: str) -> list[tuple[int, str]]:
    """So that 10 comes after 9."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", place)]


def _split_folder(folder: Path) -> Splits:
    """The shards in a folder, else those in its folders train, validation and test."""
    places = _tars_in(folder)
    if places:
        return split_shards(places)
    splits: Splits = {}
    for inner in sorted(folder.iterdir()):
        if inner.name.lower() in SPLIT_FOLDERS and inner.is_dir() and (places := _tars_in(inner)):
            splits.setdefault(SPLIT_FOLDERS[inner.name.lower()], []).extend(places)
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _tars_in(folder: Path) -> list[str]:
    files = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()]
    plain = [path for path in files if path.suffix.lower() == ".tar"]
    return sorted(map(str, plain or [path for path in files if _is_tar(path.name)]), key=_by_number)


def _expand(text: str) -> list[str]:
    """The shards that a pattern stands for, all of which are there where they are on this machine."""
    places: dict[str, None] = {}
    missing: list[str] = []
    for part in expand_braces(text):
        found = _matches(part)
        if found is None:
            missing.append(part)
        places.update(dict.fromkeys(found or [part]))
    if missing and len(places) == 1:
        raise ConfigError(f"{_shown(text)} does not exist; name a .tar file, a pattern or a folder of them")
    if missing:
        raise DataError(
            f"{some([_shown(place) for place in missing])} of the {len(places):,} shards of {_shown(text)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; put them there, or name those that are"
        )
    return list(places)


def _matches(part: str) -> list[str] | None:
    """The shards of a pattern without braces; None for a file that is not there. Single URLs are looked at later."""
    if is_url(part):
        has_pattern = "*" in part or part.endswith("/") or ("?" in part and not part.lower().startswith("http"))
        if not has_pattern:
            return [part]
        found = sorted((url for url in list_urls(part) if _is_tar(url)), key=_by_number)
    elif os.path.exists(part) or not glob.has_magic(part):
        return [part] if os.path.isfile(part) else None
    else:
        matches = glob.glob(part, recursive=True)
        found = sorted((path for path in matches if _is_tar(path) and os.path.isfile(path)), key=_by_number)
    if not found:
        raise ConfigError(f"No .tar file matches {_shown(part)}")
    _check_numbers(found)
    return found


def _check_numbers(places: Sequence[str]) -> None:
    """Raise DataError where a number is missing between the first and the last, or up to that which the names tell."""
    series: dict[tuple[str, str, str], dict[int, str]] = {}
    for place in places:
        found = _NUMBER.fullmatch(_last(place))
        if found:
            head = place[: len(place) - len(_last(place))] + found[1]
            series.setdefault((head, found[3] or "", found[4]), {})[int(found[2])] = found[2]
    for (head, total, suffix), numbers in series.items():
        wanted = range(int(total)) if total else range(min(numbers), max(numbers) + 1)
        gone = [number for number in wanted if number not in numbers]
        if gone:
            width = max(map(len, numbers.values()))
            name = f"{_shown(head)}{gone[0]:0{width}d}{f'-of-{total}' if total else ''}{suffix}"
            raise DataError(
                f"{name} is missing ({len(numbers):,} of {len(wanted):,} shards are there); put it there, "
                "or name those that are meant in braces, as {a,b}.tar"
            )
