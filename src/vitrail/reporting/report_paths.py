"""What data, weights and images are called where others read it: by names, never by the paths of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from vitrail.data.images import IMAGE_SUFFIXES

_PUBLISHED = ("hf:", "timm:", "torchvision:")


def shown_source(source: str) -> str:
    """What data, weights or corrections are called where others read it: a name, or the last part of a path."""
    if source.startswith(_PUBLISHED) and source[source.index(":") + 1 :][:1] not in ("/", "\\", ".", "~"):
        return source
    return _last_part(_without_secrets(source)) if re.search(r"[\\/]", source) else source


def shown_name(name: str) -> str:
    """What an image is called where others read it: its path below the data's folder; of any other, the last part."""
    outside = name.startswith(("/", "\\", "~", "..")) or "://" in name or bool(PureWindowsPath(name).drive)
    return _last_part(_without_secrets(name)) if outside else name


def _last_part(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name or path.strip("/\\")


def known_places(named: Sequence[str]) -> tuple[str, ...]:
    """Paths among `named`, sources of data or weights, as they are written and as they are in full, longest first."""
    found: set[str] = set()
    for name in named:
        path = name.partition(":")[2] if name.startswith(_PUBLISHED) else name
        if re.search(r"[\\/]", path) and "://" not in path and not (path != name and shown_source(name) == name):
            found |= {path.rstrip("/\\"), str(Path(path).absolute()), str(Path(path).resolve())}
    return tuple(sorted(found - {""}, key=lambda place: (-len(place), place)))


def _folders(place: str) -> Iterator[str]:
    """A place and what it lies in, of a path from a root; of any other, itself alone."""
    yield place
    if place.startswith(("/", "\\", "~", "..")) or PureWindowsPath(place).drive:
        parts = list(re.finditer(r"[\\/]+", place))
        yield from (place[: part.start()] for part in reversed(parts) if part.start())


# One part of a path, spaces and all, with another after it; the ending of a file ends it.
_WORD = r"[^\s\\/:\"<>|=]+"
_NO_FILE = "".join(rf"(?<!\.{ending})(?<!\.{ending}[,;:)'\"])" for ending in (r"\w\w", r"\w\w\w", r"\w\w\w\w"))
_PART = rf"{_WORD}(?:{_NO_FILE}[ ]{_WORD}){{0,4}}[\\/]+"
_PATH = re.compile(
    r"(?<!\w)(?P<url>(?!file:)[A-Za-z][A-Za-z0-9+.-]+://\S*)"
    rf"|(?<![\w.~\\/])(?:~[\w.-]*[\\/]+(?:{_PART})*"
    rf"|(?:(?:file:)?[\\/]+|[A-Za-z]:[\\/]+|(?:\.\.?[\\/]+)+)(?:{_PART})+)"
)


def without_paths(sentence: str, places: Sequence[str] = ()) -> str:
    """The sentence with the last part alone of every path of this machine, and addresses without what may be secret.

    `places` are paths that are known to be ones, which may hold any letter; what else looks like one is found by its
    form, where a name with spaces may take some words before it along.
    """
    folders = {folder for place in places for folder in _folders(place)}
    for folder in sorted(folders, key=len, reverse=True):
        if folder.strip("./\\~"):
            begins = rf"(?<![\w.~\\/-]){re.escape(folder)}"
            sentence = re.sub(rf"{begins}[\\/]+", "", sentence)
            if folder in places:
                sentence = re.sub(rf"{begins}(?![\w-])", _last_part(folder).replace("\\", r"\\"), sentence)
    for known in (str(Path.cwd()), str(Path.home())):
        if len(known) > 1:
            sentence = sentence.replace(known + "/", "").replace(known + "\\", "").replace(known, "~")
    return _PATH.sub(lambda found: _without_secrets(found["url"]) if found["url"] else "", sentence)


_ENDINGS = "|".join(suffix.removeprefix(".") for suffix in sorted(IMAGE_SUFFIXES))
_FILE = re.compile(rf"[^:;'\"=]*?[^\s:;'\"=(]\.(?:{_ENDINGS})\b", re.IGNORECASE)


def without_names(sentence: str, known: Mapping[str, str] | None = None) -> str:
    """The sentence without names of images' files: those `known` by what stands for them, others as "an image".

    Where another name begins cannot be told, so that all goes from the last colon, semicolon or quotation mark on.
    """
    for name, stands in sorted((known or {}).items(), key=lambda pair: -len(pair[0])):
        for form in (name, _last_part(name)):
            sentence = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", stands, sentence)
    return _FILE.sub(lambda found: " an image" if found[0].startswith(" ") else "an image", sentence)


def _without_secrets(address: str) -> str:
    """An address without the user, password and query in it."""
    if "://" not in address:
        return address
    address = re.sub(r"(://)[^\s/?#]*@", r"\1", address)
    return re.sub(r"[?#]\S*?(?=[.,;:)'\"]*(?:\s|$))", "", address)
