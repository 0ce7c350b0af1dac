"""A web server on this machine, and the ways in which others misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class LoopbackFiles:
    """Files by their paths, and how the server misbehaves; `requests` are the paths and ranges it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)  # given first, in this order
    hanging: set[str] = field(default_factory=set)  # no answer until the server ends
    trickling: set[str] = field(default_factory=set)  # a byte now and then
    cut: dict[str, int] = field(default_factory=dict)  # so many times the connection breaks in the middle
    gives_ranges: bool = True
    gives_lengths: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @contextmanager
    def serving(self) -> Generator[LoopbackFiles]:
        """Answer at `url` meanwhile."""

        class Handler(_Handler):
            served = self

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            self.ended.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: LoopbackFiles

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        served, path = self.served, unquote(self.path.partition("?")[0]).lstrip("/")
        asked = self.headers.get("Range", "")
        served.requests.append((path, asked))
        if path in served.hanging:
            served.ended.wait()
            return
        statuses = served.statuses.get(path)
        status = statuses.pop(0) if statuses else 200 if path in served.files else 404
        if status != 200:
            self.send_error(status)
            return
        content = whole = served.files[path]
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked) if served.gives_ranges else None
        if found:
            start, end = int(found[1]), int(found[2]) + 1
            if start >= len(whole):
                self.send_error(416)
                return
            content = whole[start:end]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {found[1]}-{int(found[1]) + len(content) - 1}/{len(whole)}")
        if served.gives_lengths:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(whole)}"')
        self.end_headers()
        if served.cut.get(path, 0):
            served.cut[path] -= 1
            content = content[: len(content) // 2]
        if path in served.trickling:
            for byte in content:
                if served.ended.wait(0.01):
                    return
                self.wfile.write(bytes([byte]))
        else:
            self.wfile.write(content)
