"""A local bucket: moto's S3 server behind a proxy that counts requests, adds latency and injects faults.

``benchmarks/bucket.py`` uses it too. The proxy keeps every object that it has seen in memory until it is written again:
moto copies a whole object for each range of it, and it is the reader that is to be measured.
"""

import hashlib
import http.client
import http.server
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from e2e_abmilx.store import objects
from e2e_abmilx.store.locations import ObjectUrl

BUCKET = "cohorts"

#: What may happen to a GET: an error, its stream cut in the middle, a body that is half as long as it should be, a bit
#: that is flipped, a stream that stops without an end, credentials that have expired or lack a permission.
FAULTS = ("429", "500", "503", "cut", "short", "flip", "stall", "expired", "denied")

_ERRORS = {
    "429": (429, "TooManyRequests"), "500": (500, "InternalError"), "503": (503, "SlowDown"),
    "expired": (400, "ExpiredToken"), "denied": (403, "AccessDenied"),
}  # fmt: skip


#: With which moto, which checks no signature, gives objects to readers by plain HTTP.
_SIGNED = "AWS4-HMAC-SHA256 Credential=k/20250101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


class Request(NamedTuple):
    """A request that the proxy has answered.

    Attributes:
        method: GET, PUT, …
        path: Of the object.
        sent: Bytes of the body of the answer.
        key: The access key by which it was signed.
    """

    method: str
    path: str
    sent: int
    key: str


class FaultProxy(http.server.ThreadingHTTPServer):
    """A proxy in front of an S3 server.

    Attributes:
        requests: All requests so far.
        latency_s: Time before each answer.
        fault: Called with method and path of each request; returns one of ``FAULTS`` or None.
        stall_s: How long a stalled stream stays open.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Request] = []
        self.objects: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.latency_s = 0.0
        self.stall_s = 5.0
        self.fault: Callable[[str, str], str | None] = lambda method, path: None

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self) -> list[Request]:
        """Return the GETs of objects so far."""
        return [request for request in self.requests if request.method == "GET"]

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that hang up."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy
    wbufsize = 1 << 16

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *message: object) -> None:
        pass

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else b""
        time.sleep(self.server.latency_s)
        fault = self.server.fault(self.command, self.path)
        if fault in _ERRORS:
            status, code = _ERRORS[fault]
            text = f"<Error><Code>{code}</Code><Message>The provided token has expired.</Message></Error>".encode()
            self._send(status, {"Content-Type": "application/xml"}, text)
        elif self.command == "GET" and "?" not in self.path and self._object() is not None:
            self._send_object(fault)
        else:
            self.server.objects.pop(self.path, None)
            self._send(*self._forward(body))
            self.server.objects.pop(self.path, None)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def _forward(self, body: bytes, method: str = "") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream)
        headers = {key: value for key, value in self.headers.items() if not (method and key.lower() == "range")}
        connection.request(method or self.command, self.path, body, headers)
        with connection.getresponse() as answer:
            skipped = ("content-length", "transfer-encoding", "connection", "server", "date")
            kept = {key: value for key, value in answer.getheaders() if key.lower() not in skipped}
            if self.command == "HEAD" and "Content-Length" in answer.headers:
                kept["Content-Length"] = answer.headers["Content-Length"]
            data = answer.read()
        connection.close()
        return answer.status, kept, data

    def _object(self) -> bytes | None:
        """Return the whole object, or None if there is none."""
        if self.path not in self.server.objects:
            self.headers["Authorization"] = self.headers.get("Authorization", _SIGNED)
            status, _, data = self._forward(b"", "GET")
            if status != 200:
                return None
            self.server.objects[self.path] = data
            self.server.tags[self.path] = f'"{hashlib.md5(data).hexdigest()}"'
        return self.server.objects[self.path]

    def _send_object(self, fault: str | None) -> None:
        whole = memoryview(self._object() or b"")
        start, stop = 0, len(whole)
        if found := self.headers.get("Range"):
            first, _, last = found.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(len(whole) - int(last), 0)
            stop = min(int(last) + 1, stop) if first and last else stop
        if start >= len(whole) and found:
            return self._send(416, {}, b"<Error><Code>InvalidRange</Code></Error>")
        body = whole[start:stop]
        if fault == "flip" and body:
            harmed = bytearray(body)
            harmed[len(harmed) // 2] ^= 4
            body = memoryview(harmed)
        headers = {
            "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
            "ETag": self.server.tags[self.path],
            "Accept-Ranges": "bytes",
        }
        if found:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(whole)}"
        self._send(206 if found else 200, headers, body, fault)

    def _send(self, status: int, headers: dict[str, str], body: bytes | memoryview, fault: str | None = None) -> None:
        sent = body[: len(body) // 2] if fault in ("cut", "short", "stall") else body
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(sent if fault == "short" else body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        key = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        self.server.requests.append(Request(self.command, self.path, len(sent), key))
        if fault in ("cut", "stall"):
            self.wfile.flush()
            time.sleep(self.server.stall_s if fault == "stall" else 0)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def local_bucket() -> Iterator[FaultProxy]:
    """Run an empty bucket, ``s3://cohorts``, and set the environment in which this and child processes find it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    proxy = FaultProxy(f"http://{host}:{port}")
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    ours = {
        "AWS_ENDPOINT_URL": proxy.url, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        make_bucket(proxy, BUCKET)
        yield proxy
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


def make_bucket(proxy: FaultProxy, name: str) -> None:
    """Make an empty bucket, in place of the old one of that name."""
    connection = http.client.HTTPConnection(proxy.upstream)
    if name == BUCKET:
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
    connection.request("PUT", f"/{name}")
    connection.getresponse().read()
    connection.close()
    proxy.objects.clear()
    proxy.requests.clear()


def download(folder: ObjectUrl, to: Path) -> Path:
    """Copy what lies in a bucket into a folder."""
    for page in objects.client(folder).list(None):
        for entry in page:
            path = to / entry["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(objects.get(folder, entry["path"]) or b"")
    return to
