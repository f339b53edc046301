"""A stand-in of the Hugging Face hub: the part of its HTTP interface that huggingface_hub calls for models.

Endpoints, as in the installed package: ``/api/repos/create`` (``HfApi.create_repo``); ``/api/models/…`` for the
repository's facts, ``tree``, ``preupload`` and ``commit`` (``_commit_api.py``); ``/api/validate-yaml``; git LFS's batch
endpoint (``lfs.py``) and the uploads that it names; and ``resolve`` (``file_download.py``).
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

WRITE_TOKEN, READ_TOKEN = "hf_write", "hf_read"
LARGE = (".safetensors", ".onnx")  # kept by LFS, as the hub's .gitattributes say


@dataclass
class Repository:
    private: bool
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})

    @property
    def head(self) -> str:
        return list(self.commits)[-1]


class Hub(ThreadingHTTPServer):
    """Repositories in memory; ``requests`` lists the methods and paths that were called."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((method, path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for route, pattern, answer in ROUTES:
            if route == method.replace("HEAD", "GET") and (found := re.fullmatch(pattern, path)):
                return answer(self, *found.groups(), **({"body": body} if method in ("POST", "PUT") else {}))
        return self._send(404, {"error": "no such endpoint"})

    def _send(self, status: int, content: object = None, code: str = "", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        if code:
            headers["X-Error-Code"] = code
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _find(self, name: str, revision: str = "main") -> tuple[Repository, str] | None:
        """Return a repository and a commit; send an error where the real hub does."""
        repo = self.server.repos.get(name)
        if self._token not in ("", READ_TOKEN, WRITE_TOKEN):
            return self._send(401, code="", X_Error_Message="Invalid credentials in Authorization header")
        if repo is None or (repo.private and not self._token):
            return self._send(404 if self._token else 401, code="RepoNotFound")
        if repo.gated:
            return self._send(403, code="GatedRepo")
        commit = repo.head if revision == "main" else revision
        if commit not in repo.commits:
            return self._send(404, code="RevisionNotFound")
        return repo, commit

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if self._token not in (READ_TOKEN, WRITE_TOKEN):
            return self._send(401, X_Error_Message="Invalid credentials in Authorization header")
        if self._token != WRITE_TOKEN or asked["organization"] == "others":
            return self._send(403, X_Error_Message="You don't have the rights to create a model under this namespace")
        if name in self.server.repos:
            return self._send(409, {"url": f"{self.server.url}/{name}"})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.server.repos[name] = Repository(private)
        return self._send(200, {"url": f"{self.server.url}/{name}"})

    def validate_yaml(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        front = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        assert front, "a card of the hub starts with YAML"
        assert isinstance(yaml.safe_load(front.group(1)), dict)
        self._send(200, {"errors": [], "warnings": []})

    def info(self, name: str, revision: str | None) -> None:
        if found := self._find(name, revision or "main"):
            repo, commit = found
            files = [{"rfilename": path} for path in repo.commits[commit]]
            self._send(200, {"id": name, "sha": commit, "private": repo.private, "siblings": files, "tags": []})

    def tree(self, name: str, revision: str) -> None:
        if found := self._find(name, revision):
            repo, commit = found
            self._send(200, [describe(path, content) for path, content in repo.commits[commit].items()])

    def preupload(self, name: str, _: str, body: bytes) -> None:
        if self._find(name):
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            self._send(200, {"files": files})

    def lfs_batch(self, name: str, body: bytes) -> None:
        if self._find(name):
            objects = json.loads(body)["objects"]
            places = [{"upload": {"href": f"{self.server.url}/storage/{item['oid']}"}} for item in objects]
            answers = [{**item, "actions": place} for item, place in zip(objects, places, strict=True)]
            self._send(200, {"transfer": "basic", "objects": answers})

    def store(self, oid: str, body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self._send(200)

    def commit(self, name: str, _: str, body: bytes) -> None:
        if not (found := self._find(name)):
            return None
        repo, commit = found
        files = dict(repo.commits[commit])
        for line in body.splitlines():
            change = json.loads(line)
            key, value = change["key"], change["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(body).hexdigest()
        repo.commits[oid] = files
        return self._send(200, {"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if found := self._find(name, revision):
            repo, commit = found
            content = repo.commits[commit][path]
            self._send(200, content, ETag=f'"{describe(path, content)["oid"]}"', X_Repo_Commit=commit)


def describe(path: str, content: bytes) -> dict[str, object]:
    """Return the entry of a file in a tree."""
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content)}
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", rf"/api/models/{REPO}(?:/revision/(.+))?", Handler.info),
    ("GET", rf"/api/models/{REPO}/tree/([^/]+)", Handler.tree),
    ("POST", rf"/api/models/{REPO}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/(.+)", Handler.commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/storage/(\w+)", Handler.store),
    ("GET", rf"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
]
