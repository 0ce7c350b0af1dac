"""The index of a tar shard in WebDataset naming: where each image stands, its label, and the hash of its bytes.

A sample is all files of one key, the path up to the first dot of the name: `ants/01.jpg` and `ants/01.cls`. An index is
made in one pass over the shard and is plain JSON, so that it may lie beside the shard as <shard>.index.json.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from vitrail.data.images import IMAGE_SUFFIXES
from vitrail.data.tar_members import Member, list_members
from vitrail.errors import DataError

VERSION = 1  # raise it when what stands in an index, or how it is found, changes

_FORMAT = "vitrail shard index"
_LABEL_FIELDS = ("label", "labels", "class", "cls")  # of a .json, the first that is there
_MAX_TEXT = 2**20  # bytes of a .cls, .json or .txt; what has more is no label
_CHUNK = 2**20

Label = int | str | list[int] | list[str]


@dataclass(frozen=True)
class Columns:
    """What of a sample is taken: the image's suffix, the label's suffix or .json field, the .json field of groups."""

    image: str | None = None
    label: str | None = None
    group: str | None = None


@dataclass
class ShardIndex:
    """The samples of one shard in their order, a list for each of their properties, and what cannot be used.

    `digests` are the SHA-256 of the images' bytes; `broken` are key and reason.
    """

    members: list[str] = field(default_factory=list[str])
    offsets: list[int] = field(default_factory=list[int])
    sizes: list[int] = field(default_factory=list[int])
    digests: list[str] = field(default_factory=list[str])
    labels: list[Label] = field(default_factory=list[Label])
    groups: list[str | None] = field(default_factory=list[str | None])
    broken: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    ignored: list[str] = field(default_factory=list[str])

    def to_json(self, size: int, version: str, columns: Columns) -> str:
        """The index as it is written; `size` and `version` are those of the shard."""
        head = {"format": _FORMAT, "version": VERSION, "shard_bytes": size, "shard_version": version}
        return json.dumps(head | {"columns": asdict(columns)} | asdict(self), ensure_ascii=False)


def parse_index(text: str, size: int, version: str | None, columns: Columns) -> ShardIndex | str:
    """The index in `text`, or why it does not serve a shard of `size` bytes and `version`.

    The version is None where only the size can be known.
    """
    try:
        content: Any = json.loads(text)
        if content["format"] != _FORMAT:
            return "is no index of a shard"
        if content["version"] != VERSION:
            return "is of another version of Vitrail"
        if content["shard_bytes"] != size or version not in (None, content["shard_version"]):
            return "is older than the shard"
        if content["columns"] != asdict(columns):
            return "was made for other columns"
        index = ShardIndex(**{name: content[name] for name in ShardIndex.__dataclass_fields__})
        index.broken = [(str(key), str(reason)) for key, reason in index.broken]
        return index if _is_sound(index, size) else "is damaged"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "is damaged"


def _is_sound(index: Any, size: int) -> bool:
    places = zip(index.offsets, index.sizes, strict=True)
    labels = [one for label in index.labels for one in (label if isinstance(label, list) else [label])]
    lists = (index.members, index.offsets, index.digests, index.labels, index.groups)
    return (
        len({len(values) for values in lists}) == 1
        and all(
            type(offset) is type(length) is int and 0 <= offset <= offset + length <= size for offset, length in places
        )
        and all(isinstance(text, str) for text in (*index.members, *index.digests, *index.ignored))
        and all(group is None or isinstance(group, str) for group in index.groups)
        and all(type(one) in (int, str) for one in labels)
    )


@dataclass
class _Sample:
    images: dict[str, tuple[Member, str]] = field(default_factory=dict[str, tuple[Member, str]])  # with their hash
    texts: dict[str, bytes] = field(default_factory=dict[str, bytes])
    others: list[str] = field(default_factory=list[str])
    doubled: str = ""


def make_index(
    file: BinaryIO, size: int, where: str, columns: Columns, told: Callable[[int], None] = lambda _: None
) -> ShardIndex:
    """The index of the shard that `file` reads, of `size` bytes. `told` is called with how many were read so far.

    What cannot be used of it is named in the index. Raises DataError where the tar is damaged or has no sample, and
    where it is not clear which of several images is meant.
    """
    samples: dict[str, _Sample] = {}
    index = ShardIndex()
    text_suffixes = {"cls", "json", "txt", (columns.label or "cls").lower()}
    for member in list_members(file, size, where):
        told(member.offset)
        folder, _, name = member.name.rpartition("/")
        base, _, suffix = name.partition(".")
        suffix = suffix.lower()
        if member.unfit or not base or not suffix or member.name.startswith("__"):
            index.ignored.append(f"{member.name} ({member.unfit})" if member.unfit else member.name)
            continue
        sample = samples.setdefault(f"{folder}/{base}" if folder else base, _Sample())
        if suffix in sample.images or suffix in sample.texts:
            sample.doubled = member.name
        elif suffix in text_suffixes and suffix != columns.image and member.size <= _MAX_TEXT:
            file.seek(member.offset)
            sample.texts[suffix] = file.read(member.size)
        elif suffix == (columns.image or "").lower() or f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES:
            sample.images[suffix] = member, _digest(file, member)
        else:
            sample.others.append(member.name)
    for key, sample in samples.items():
        _add(index, key, sample, where, columns)
    if not index.members and not index.broken:
        raise DataError(
            f"{where} holds no image; a shard holds an image and a label for each key, as 01.jpg and 01.cls"
        )
    return index


def _digest(file: BinaryIO, member: Member) -> str:
    file.seek(member.offset)
    digest, left = hashlib.sha256(), member.size
    while left and (chunk := file.read(min(_CHUNK, left))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _add(index: ShardIndex, key: str, sample: _Sample, where: str, columns: Columns) -> None:
    """Put a sample where it belongs: among the images, the broken, or what is passed over."""
    if sample.doubled:
        index.broken.append((key, f"{sample.doubled} stands twice in the shard"))
        return
    label, problem = _label_of(sample.texts, columns.label)
    image = _image_of(sample, f"{where}: {key}", columns.image)
    if image is None and label is None:
        index.ignored += [*sample.others, *(f"{key}.{suffix}" for suffix in (*sample.texts, *sample.images))]
    elif image is None or label is None:
        missing = f"there is no image{f' .{columns.image}' if columns.image else ''} of its key"
        index.broken.append((key, missing if image is None else problem))
    else:
        member, digest = image
        index.members.append(member.name)
        index.offsets.append(member.offset)
        index.sizes.append(member.size)
        index.digests.append(digest)
        index.labels.append(label)
        index.groups.append(_group_of(sample.texts, columns.group))


def _image_of(sample: _Sample, where: str, wanted: str | None) -> tuple[Member, str] | None:
    if wanted is not None:
        return sample.images.get(wanted.lower())
    # 01.jpg is the image of 01, where there is also 01.mask.png
    plain = [suffix for suffix in sample.images if "." not in suffix] or list(sample.images)
    if len(plain) > 1:
        raise DataError(
            f"{where} has several images, .{' and .'.join(sorted(plain))}; "
            f"say which one is meant, as --set data.image_column={sorted(plain)[0]}"
        )
    return sample.images[plain[0]] if plain else None


def _label_of(texts: Mapping[str, bytes], wanted: str | None) -> tuple[Label | None, str]:
    """A sample's label, or None and why it has none."""
    try:
        if wanted is not None and wanted.lower() in texts and wanted.lower() != "json":
            return _from_text(texts[wanted.lower()]), ""
        if wanted in (None, "cls") and "cls" in texts:
            return _from_text(texts["cls"]), ""
        fields = _LABEL_FIELDS if wanted in (None, "json") else (wanted,)
        record = _json_of(texts)
        for name in fields:
            if name in record:
                return _from_json(record[name]), ""
        if wanted is None and "txt" in texts:
            return str(_text_of(texts["txt"])), ""
    except ValueError as error:
        return None, str(error)
    return None, f"it has no label{f' {wanted!r}' if wanted else ''}"


def _json_of(texts: Mapping[str, bytes]) -> dict[str, Any]:
    if "json" not in texts:
        return {}
    try:
        record = json.loads(texts["json"])
    except (ValueError, RecursionError):
        raise ValueError("its .json cannot be read") from None
    return record if isinstance(record, dict) else {}


def _text_of(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
    except ValueError:
        raise ValueError("its label is no UTF-8") from None
    if not text:
        raise ValueError("its label is empty")
    if len(text.splitlines()) > 1:
        raise ValueError("its label has several lines")
    return text


def _from_text(content: bytes) -> int | str:
    text = _text_of(content)
    return _checked(int(text)) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text


def _from_json(value: Any) -> Label:
    if not isinstance(value, list):
        return _one_from_json(value)
    values = [_one_from_json(one) for one in value]
    numbers = [one for one in values if isinstance(one, int)]
    words = [one for one in values if isinstance(one, str)]
    if numbers and words:
        raise ValueError(f"its label {value} mixes numbers with words")
    return numbers or words


def _one_from_json(value: Any) -> int | str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return _checked(value)
    raise ValueError(f"its label is {json.dumps(value)[:40]}, neither text nor a whole number")


def _checked(number: int) -> int:
    if not 0 <= number < 2**31:
        raise ValueError(f"its label is {number}; labels count from 0")
    return number


def _group_of(texts: Mapping[str, bytes], wanted: str | None) -> str | None:
    if wanted is None:
        return None
    try:
        value = _json_of(texts).get(wanted)
    except ValueError:
        return None
    return None if value is None else str(value)
