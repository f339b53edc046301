"""The server of the viewer.

It is the standard library's threading HTTP server: no further dependency, and threads suit decoders that block and release
the interpreter. Everything lies below a random token, so that neither other users of the machine nor other pages in the
browser can read slides: they do not know the address.
"""

import errno
import ipaddress
import logging
import secrets
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer.routes import Answer, Routes
from e2e_abmilx.viewer.viewed_run import NotFoundError

logger = logging.getLogger(__name__)

_LONGEST_BODY = 200_000  # bytes of a review: 10,000 characters of a note in JSON, each up to 12 bytes
_IDLE = 60  # seconds until a connection that asks for nothing is closed
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors"
    # notebooks show the page in a frame, and run on this machine, or are forwarded to it
    " http://127.0.0.1:* http://localhost:* https://127.0.0.1:* https://localhost:* vscode-webview:"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Serves addresses below a random token until it is closed.

    Args:
        routes: The addresses.
        host: The address to listen on.
        port: The port; 0 for any free one.

    Attributes:
        url: The address of the page.

    Raises:
        InputError: The port is taken, or the address is not one of this machine.
    """

    daemon_threads = True
    request_queue_size = 128  # with the usual 5, some of many connections at a time wait a second or are refused
    block_on_close = False  # a browser may keep a connection open

    def __init__(self, routes: Routes, host: str, port: int) -> None:
        self.routes, self.token = routes, secrets.token_urlsafe(16)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OverflowError as error:
            raise InputError(f"port is {port}; it must lie between 0 and 65535") from error
        except OSError as error:
            raise InputError(_reason(error, host, port)) from error
        self.port = int(self.server_address[1])
        shown = f"[{host}]" if ":" in host else host
        self.hosts = _hosts(host, shown)
        self.url = f"http://{socket.gethostname() if _is_any(host) else shown}:{self.port}/{self.token}/"
        self._thread = Thread(target=self.serve_forever, name="viewer", daemon=True)

    def start(self) -> None:
        """Serve in a thread that ends with the process."""
        self._thread.start()

    def wait(self) -> None:
        """Wait until the server is closed."""
        while self._thread.is_alive():
            self._thread.join(1)  # a wait without end cannot be interrupted on every system

    def close(self) -> None:
        """Stop serving."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        """Bind the socket, without the look-up of the host's name that HTTPServer does and that can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Note an error of one connection, such as a browser that closed it; the server goes on."""
        logger.debug("a request failed: %s", sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "e2e-abmilx", ""
    timeout = _IDLE
    wbufsize = -1  # header and body in one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Send a page, a document or a picture."""
        address = self._address()
        if address is not None:
            self._answer(lambda: self.server.routes.get(address))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Save a review."""
        address = self._address()
        if address is None:
            return
        length = self.headers.get("Content-Length", "")
        if address != "review":
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only reviews can be sent")
        elif self.headers.get_content_type() != "application/json":  # other pages cannot send it without being asked
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a review is sent as application/json")
        elif not (length.isascii() and length.isdigit() and int(length) <= _LONGEST_BODY):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a review has at most {_LONGEST_BODY:,} bytes")
        else:
            body = self.rfile.read(int(length))
            self._answer(lambda: self.server.routes.save_review(body), HTTPStatus.BAD_REQUEST)

    def _refuse_method(self) -> None:
        if self._address() is not None:
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET, HEAD and POST are answered")

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method

    def _address(self) -> str | None:
        """Return the address below the token; None if the request was refused."""
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host") or ""
        _, token, *rest = [*self.path.partition("?")[0].split("/", 2), ""]
        known = secrets.compare_digest(token.encode(errors="replace"), self.server.token.encode())
        if self.server.hosts is not None and host.lower() not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this server does not have that name")
        elif not (known and self.path.startswith("/")):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that `e2e-abmilx view` printed, with its token")
        elif len(rest) == 1:  # the page's addresses are relative to the slash
            self._send(HTTPStatus.MOVED_PERMANENTLY, Answer(b"", "text/plain"), {"Location": f"/{self.server.token}/"})
        else:
            return rest[0]
        return None

    def _answer(self, make: Any, fault: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR) -> None:  # noqa: ANN401
        try:
            answer = make()
        except NotFoundError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
        except InputError as error:
            self._refuse(fault, str(error))
        except Exception as error:
            logger.debug("a request failed", exc_info=True)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            self._send(HTTPStatus.OK, answer)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = self.close_connection or self.command != "GET"  # a body may be left unread
        self._send(status, Answer(f"{reason}\n".encode(errors="replace"), "text/plain; charset=utf-8"))

    def _send(self, status: HTTPStatus, answer: Answer, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        kept = f"private, max-age={answer.keep}" if answer.keep else "no-store"
        facts = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body)), "Cache-Control": kept}
        closing = {"Connection": "close"} if self.close_connection else {}
        for name, value in {**facts, **_HEADERS, **(more or {}), **closing}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Write requests to the debug log, without the token."""
        logger.debug("%s", (format % args).replace(self.server.token, "…"))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


def _hosts(host: str, shown: str) -> frozenset[str] | None:
    """Return the names that requests may be sent to; None for any, of a server that listens on all addresses.

    A page elsewhere can point a name of its own at 127.0.0.1 (DNS rebinding); its requests carry that name.
    """
    return None if _is_any(host) else frozenset((shown.lower(), *(_LOOPBACK if is_loopback(host) else ())))


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is taken, maybe by another viewer; close that one, or use any free port with `--port 0`"
            " (in Python port=0)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may only be used by the administrator; use one above 1023, such as 8642"
    return f"host is {host}, which is no address of this machine ({error.strerror}); leave it out for 127.0.0.1"
