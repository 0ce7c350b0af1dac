"""Files at URLs, whole or in parts: http and https by the standard library, every other kind of storage by fsspec.

No request waits without an end, each is tried several times, and what went wrong is one sentence that names the URL.
A host that answers none of several requests is left alone for a while: all that is asked of it fails at once.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from vitrail.data.hosts import Hosts, is_silence
from vitrail.data.records import SourceError
from vitrail.errors import DataError

TIMEOUT_SECONDS = 20.0  # without an answer, or without another byte of it
MIN_BYTES_PER_SECOND = 1000  # of an answer; one that trickles would keep a thread for days
MAX_BYTES = 2**30  # of a file that is read whole: an image has less, a camera that never ends has more
NUM_TRIES = 3
PAUSE_SECONDS = 1.0  # before the second try; before the third twice that

_CHUNK = 2**20
_TRY_AGAIN = frozenset({408, 425, 429})  # and all from 500 on
_HEADERS = {"User-Agent": "vitrail", "Accept-Encoding": "identity"}

T = TypeVar("T")

hosts = Hosts()  # of this process


class MissingError(DataError):
    """There is no file at a URL."""


class RefusedError(DataError):
    """The file at a URL may not be read, or not be known to be there."""


class _Final(Exception):
    """What another try would not change."""


class _Beyond(_Final):
    """The file ends before the bytes that are asked for."""


@dataclass(frozen=True)
class UrlFacts:
    """A file's bytes, and what changes when it does: an ETag, or the time of its last change; "" if none is known."""

    size: int
    version: str


def is_url(place: object) -> bool:
    """Whether this is a URL rather than a path: a scheme of two letters or more, as no Windows drive has, and "://"."""
    return isinstance(place, str) and re.match(r"[A-Za-z][A-Za-z0-9+.\-]+://", place) is not None


def shown_url(url: str) -> str:
    """A URL as a message may show it: without what follows "?" and without a password, which may be secrets."""
    plain = url.partition("?")[0].partition("#")[0]
    return re.sub(r"(?<=://)[^/@]*@", "", plain)


def read_url(url: str) -> bytes:
    """All bytes of the file at `url`. Raises DataError: MissingError if there is none, RefusedError if we may not."""
    if _is_http(url):
        return _tried(url, lambda: _get(url, {}))
    return _tried(url, lambda: _from_storage(url, lambda files, path: files.cat_file(path), 10 * TIMEOUT_SECONDS))


def read_range(url: str, offset: int, size: int) -> bytes:
    """The `size` bytes from `offset` on of the file at `url`. Raises DataError, also where the file ends before."""
    if size == 0:
        return b""

    def read() -> bytes:
        if _is_http(url):
            content = _get(url, {"Range": f"bytes={offset}-{offset + size - 1}"}, size)
        else:
            limit = TIMEOUT_SECONDS + size / MIN_BYTES_PER_SECOND
            content = _from_storage(url, lambda files, path: files.cat_file(path, offset, offset + size), limit)
        if len(content) != size:
            raise _Final(f"it ends at byte {offset + len(content):,}, before byte {offset + size:,}")
        return content

    return _tried(url, read)


def url_facts(url: str) -> UrlFacts:
    """What is known of the file at `url` without reading it. Raises DataError, MissingError if there is none.

    Of a server that does not give parts of files, too: shards there cannot be read.
    """
    if _is_http(url):
        return _tried(url, lambda: _http_facts(url))
    return _tried(url, lambda: _from_storage(url, _storage_facts, TIMEOUT_SECONDS))


def list_urls(pattern: str) -> list[str]:
    """The URLs that a pattern stands for, sorted: * and ? match within a name, a / at the end is all in a folder.

    Raises DataError for http and https, where nothing lists the files.
    """
    if _is_http(pattern):
        raise DataError(
            f"{shown_url(pattern)} cannot be listed, as web servers do not say which files they have; "
            "write their numbers in braces, as in train-{000000..000009}.tar"
        )

    def find(files: Any, path: str) -> list[str]:
        found = files.ls(path, detail=False) if pattern.endswith("/") else files.glob(path)
        return sorted(str(files.unstrip_protocol(name)) for name in found)

    return _tried(pattern, lambda: _from_storage(pattern, find, 10 * TIMEOUT_SECONDS))


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _tried(url: str, action: Callable[[], T]) -> T:
    """What `action` gives, tried again where that may help; what it raises as one sentence.

    It is SourceError where a host that has answered before answers no more.
    """
    for tries in range(1, NUM_TRIES + 1):
        _check_host(url)
        try:
            given = action()
        except FileNotFoundError as error:
            hosts.answers(url)
            raise MissingError(f"{shown_url(url)} does not exist") from error
        except PermissionError as error:
            hosts.answers(url)
            raise RefusedError(f"{shown_url(url)} cannot be read: {_reason(error)}") from error
        except _Final as error:
            raise DataError(f"{shown_url(url)} cannot be read: {error}") from error
        except Exception as error:  # every kind of storage has errors of its own
            if _is_last(url, error, tries):
                times = f"{tries} times" if tries > 1 else "once"
                raise DataError(f"{shown_url(url)} cannot be read, tried {times}: {_reason(error)}") from error
        else:
            hosts.answers(url)
            return given
        time.sleep(PAUSE_SECONDS * tries)
    raise AssertionError


def _check_host(url: str) -> None:
    silence = hosts.silence(url)
    if silence is not None:
        sentence, has_answered = silence
        # A list may name many hosts, some of which are gone; but one that goes away while it is read would take with
        # it all that was not read yet.
        raise (SourceError if has_answered else DataError)(f"{shown_url(url)} cannot be read: {sentence}")


def _is_last(url: str, error: Exception, tries: int) -> bool:
    """Whether a request that failed so often is not to be tried again; what that says of its host is noted."""
    if not is_silence(error):
        hosts.answers(url)
        return tries == NUM_TRIES
    last = tries == NUM_TRIES or hosts.is_doubtful(url)
    if last:
        hosts.fails(url, _reason(error))
    else:
        hosts.waits(url, shown_url(url), _reason(error))
    return last


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    text = str(getattr(cause, "strerror", None) or cause).strip()
    return text.splitlines()[0] if text else type(cause).__name__


# http and https


def _open(url: str, headers: Mapping[str, str]) -> HTTPResponse:
    """The answer to a request. Raises FileNotFoundError, PermissionError, _Final, or what another try may mend."""
    try:
        # A URL may be written with spaces and letters of any script; what is quoted stays as it is.
        request = Request(quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers=_HEADERS | dict(headers))
        return urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise FileNotFoundError(url) from error
        if error.code == 416:
            raise _Beyond("it ends before the bytes that are asked for") from error
        if error.code in (401, 403):
            raise PermissionError(f"the server refuses it (HTTP {error.code})") from error
        if error.code < 500 and error.code not in _TRY_AGAIN:
            raise _Final(f"the server answers HTTP {error.code} {error.reason}".rstrip()) from error
        raise ConnectionError(f"the server answers HTTP {error.code} {error.reason}".rstrip()) from error
    except URLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error.reason):
            raise _Final(f"its certificate cannot be trusted ({error.reason})") from error
        raise
    except (ValueError, HTTPException) as error:
        if isinstance(error, ValueError) or "URL" in type(error).__name__:
            raise _Final(f"it is no valid URL ({error})") from error
        raise


def _get(url: str, headers: Mapping[str, str], size: int | None = None) -> bytes:
    """The body of an answer: the part of `size` bytes that `headers` ask for, else all of a file."""
    with _open(url, headers) as answer:
        if size is not None and answer.status != 206:
            raise _Final(_NO_RANGES)
        length = answer.headers.get("Content-Length", "")
        expected = int(length) if length.isdigit() else None
        most = MAX_BYTES if size is None else size
        if (expected or 0) > most:
            raise _Final(f"it has {expected or 0:,} bytes, more than {most:,}")
        content, started = bytearray(), time.monotonic()
        # read1 gives what has come; read would wait for all of it, however slowly it comes.
        while chunk := answer.read1(_CHUNK):
            content += chunk
            if len(content) > most:
                raise _Final(f"it has more than {most:,} bytes")
            seconds = time.monotonic() - started
            if seconds > TIMEOUT_SECONDS and len(content) < seconds * MIN_BYTES_PER_SECOND:
                raise TimeoutError
    if expected is not None and len(content) < expected:
        raise ConnectionError(f"the connection broke after {len(content):,} of {expected:,} bytes")
    return bytes(content)


_NO_RANGES = "the server gives whole files only, no parts of them; download it"


def _http_facts(url: str) -> UrlFacts:
    try:
        # Not HEAD: addresses that are signed for GET refuse it.
        opened = _open(url, {"Range": "bytes=0-0"})
    except _Beyond:
        return UrlFacts(0, "")
    with opened as answer:
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status == 206 and size.isdigit():
            return UrlFacts(int(size), version)
        if answer.headers.get("Content-Length") == "0":
            return UrlFacts(0, version)
    raise _Final(_NO_RANGES)


# All else


def _from_storage(url: str, action: Callable[[Any, str], T], seconds: float) -> T:
    """What `action` gives of the file system and path that `url` names, within so many seconds."""

    def act() -> T:
        from fsspec.core import url_to_fs

        try:
            files, path = url_to_fs(url)
        except ImportError as error:
            raise _Final(_what_to_install(url)) from error
        except ValueError as error:
            raise _Final(str(error).rstrip(".")) from error
        return action(files, path)

    return _within(seconds, act)


def _what_to_install(url: str) -> str:
    from fsspec.registry import known_implementations

    known = known_implementations.get(urlsplit(url).scheme, {})
    package = str(known.get("class", "")).partition(".")[0]
    if package and package != "fsspec":
        return f"it needs the package {package}; pip install {package}"
    return str(known.get("err", "a package that it needs is not installed")).rstrip(".")


def _within(seconds: float, action: Callable[[], T]) -> T:
    """What `action` gives; TimeoutError after so many seconds. The thread of one that hangs ends with the process."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future.result(seconds)


def _storage_facts(files: Any, path: str) -> UrlFacts:
    facts: dict[str, Any] = files.info(path)
    size = facts.get("size")
    if facts.get("type") == "directory" or not isinstance(size, int):
        raise _Final("it is a folder, not a file" if facts.get("type") == "directory" else "its size is not known")
    version = next((facts[name] for name in _VERSIONS if facts.get(name)), "")
    return UrlFacts(size, str(version))


_VERSIONS = ("ETag", "etag", "content_md5", "sha", "blob_id", "LastModified", "last_modified", "mtime", "created")
