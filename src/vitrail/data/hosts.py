"""Hosts that do not answer: known after a few requests, so that a thousand more do not wait for them one by one."""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.error import HTTPError, URLError

NUM_SILENT = 3  # requests in a row without an answer, each for another URL, after which a host is taken to be gone
REST_SECONDS = 60.0  # in which it is asked nothing; then one request finds out whether it is there again
NUM_TOLD = 10  # hosts of which a warning is given: lists of the whole web name thousands that are gone

_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)

logger = logging.getLogger(__name__)


@dataclass
class _Host:
    """What is known of one host: the URLs that failed since its last answer, why, and when it is asked again."""

    failed: set[str] = field(default_factory=set[str])
    reason: str = ""
    rests_until: float = 0.0
    answered: bool = False
    told: bool = False


class Hosts:
    """Which hosts answer, for all threads; a host is a scheme, a name and a port."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._hosts.clear()

    def silence(self, url: str) -> tuple[str, bool] | None:
        """A sentence, where the host of `url` is not to be asked now, and whether it has ever answered.

        When its rest is over, one request may go through; the others wait for what becomes of it.
        """
        with self._lock:
            host = self._hosts.get(host_of(url))
            if host is None or len(host.failed) < NUM_SILENT:
                return None
            now = time.monotonic()
            if now >= host.rests_until:
                host.rests_until = now + REST_SECONDS
                return None
            sentence = (
                f"{host_of(url)} does not answer ({len(host.failed)} requests in a row: {host.reason}); "
                "see that it runs and can be reached from here, then try again"
            )
            return sentence, host.answered

    def is_doubtful(self, url: str) -> bool:
        """Whether requests for other URLs of the same host have just failed: then one try is enough."""
        with self._lock:
            host = self._hosts.get(host_of(url))
            return host is not None and bool(host.failed - {url})

    def answers(self, url: str) -> None:
        """Note that the host of `url` has answered, whatever it said."""
        with self._lock:
            host = self._hosts.setdefault(host_of(url), _Host())
            host.answered = True
            host.failed.clear()

    def waits(self, url: str, shown: str, reason: str) -> None:
        """Note a first try without an answer, and say so, once for each host."""
        with self._lock:
            host = self._hosts.setdefault(host_of(url), _Host())
            tell = not host.told and sum(host.told for host in self._hosts.values()) < NUM_TOLD
            host.told |= tell
        if tell:
            logger.warning("%s: %s; it is tried again", shown, reason)

    def fails(self, url: str, reason: str) -> None:
        """Note that a request had no answer in all its tries."""
        with self._lock:
            host = self._hosts.setdefault(host_of(url), _Host())
            if len(host.failed) < NUM_SILENT:
                host.failed.add(url)
            host.reason = reason
            host.rests_until = time.monotonic() + REST_SECONDS


def host_of(url: str) -> str:
    """Scheme, name and port, as in "http://photos.example:8080", without a password."""
    scheme, _, rest = url.partition("://")  # urlsplit refuses what is no valid URL
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]}".lower()


def is_silence(error: Exception) -> bool:
    """Whether an error says that nobody answered, rather than what the answer was."""
    cause = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    if isinstance(cause, TimeoutError | ConnectionRefusedError | socket.gaierror):
        return True
    return isinstance(cause, OSError) and cause.errno in _UNREACHABLE
