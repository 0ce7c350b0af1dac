"""A hub on this machine: the file and upload endpoints of huggingface.co, as far as huggingface_hub asks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_loopback"  # the one that may read private and gated repositories, and write
LFS_BYTES = 2000  # files above are stored by their sha256, as on the hub


@dataclass
class Repository:
    """The files of a model, by their paths, and who may read them."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readme_problem: str | None = None

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()


class LoopbackHub:
    """Repositories by name ("datasets/owner/name" for data), and how the hub misbehaves; `requests` are lines asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}  # large files by their sha256
        self.requests: list[str] = []
        self.shortened: set[str] = set()  # files that arrive without their end
        self.flipped: set[str] = set()  # files that arrive with other bytes
        self.broken_once: set[str] = set()  # files whose connection breaks in the middle, the first time
        self.down = False  # the server answers 503
        self.url = ""

    def add_folder(self, name: str, folder: Path, **options: Any) -> Repository:
        """Publish the files of a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[name] = Repository(files, **options)
        return self.repositories[name]

    @contextmanager
    def serving(self) -> Generator[LoopbackHub]:
        """Answer at `url` meanwhile."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        self.hub.requests.append(format % arguments)

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._answer(status, message.encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _knows_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _readable(self, name: str) -> Repository | None:
        """The repository, or None after a refusal."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._knows_token()):
            self._refuse(401 if not self._knows_token() else 404, "RepoNotFound", "Repository not found")
            return None
        if repository.gated and not self._knows_token():
            self._refuse(401, "GatedRepo", "Access to this model is restricted")
            return None
        return repository

    def _get(self) -> None:
        if self.hub.down:
            self._answer(503)
            return
        path = unquote(self.path.partition("?")[0])
        if found := re.fullmatch(
            r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)(?:/revision/[^/]+)?", path
        ):
            if repository := self._readable(found[1]):
                siblings = [{"rfilename": name} for name in repository.files]
                facts = {
                    "id": found[1].removeprefix("datasets/"),
                    "modelId": found[1],
                    "sha": repository.commit,
                    "siblings": siblings,
                }
                self._json(facts | {"private": repository.private, "tags": [], "downloads": 0})
        elif found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            if repository := self._readable(found[1]):
                self._file(repository, found[2])
        elif found := re.fullmatch(r"/plain/(.+)", path):
            self._file(self.hub.repositories["plain/files"], found[1])
        else:
            self._answer(404)

    def _file(self, repository: Repository, name: str) -> None:
        hub, commit = self.hub, {"X-Repo-Commit": repository.commit}
        if name not in repository.files:
            self._answer(404, b"Entry not found", commit | {"X-Error-Code": "EntryNotFound"})
            return
        content = repository.files[name]
        hashed = hashlib.sha256(content) if len(content) > LFS_BYTES else hashlib.sha1(content)
        headers = commit | {"ETag": f'"{hashed.hexdigest()}"', "Content-Length": str(len(content))}
        if self.command == "GET" and name in hub.flipped:
            content = content[:-4] + bytes(255 - byte for byte in content[-4:])
        if self.command == "GET" and name in hub.shortened:
            content = content[: len(content) // 2]
            headers["Content-Length"] = str(len(content))
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        if self.command == "GET" and name in hub.broken_once:
            hub.broken_once.remove(name)
            self.send_response(200)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        if start:
            headers |= {"Content-Length": str(len(content) - start)}
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, content[start:], headers)

    def do_PUT(self) -> None:
        content = self._body()
        self.hub.stored[self.path.rpartition("/")[2]] = content
        self._answer(200)

    def do_POST(self) -> None:
        body = self._body()
        if self.hub.down:
            self._answer(503)
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif not self._knows_token():
            self._answer(401, b"{}", {"X-Error-Message": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/[^/]+", self.path.partition("?")[0]):
            files = [
                {"path": entry["path"], "uploadMode": "lfs" if entry["size"] > LFS_BYTES else "regular"}
                | {"shouldIgnore": False, "oid": None}
                for entry in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.path):
            objects = [
                {"oid": wanted["oid"], "size": wanted["size"]}
                | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", self.path.partition("?")[0]):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
        if name.startswith("other/"):
            self._answer(
                403, b"{}", {"X-Error-Message": "You don't have the rights to create a model under this namespace"}
            )
        elif name in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
        else:
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.hub.repositories[name] = Repository(private=private)
            self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.stored[value["oid"]]
        url = f"{self.hub.url}/{name}/commit/{repository.commit}"
        self._json({"success": True, "commitOid": repository.commit, "commitUrl": url, "hookOutput": ""})
