"""The server, asked as browsers and attackers do."""

import http.client
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from viewed_runs import copy_data, write_viewed_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer.routes import Routes
from e2e_abmilx.viewer.server import Server, is_loopback
from e2e_abmilx.viewer.viewed_run import ViewedRun


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> Routes:
    folder = tmp_path_factory.mktemp("server")
    data = copy_data(folder / "data", cohort, stores, {"slide-000": "slide-000"})
    return Routes(ViewedRun(write_viewed_run(folder / "run", data, {"case": ["slide-000"], "other": ["slide-000"]})))


@pytest.fixture(scope="module")
def server(routes: Routes) -> Iterator[Server]:
    served = Server(routes, "127.0.0.1", 0)
    served.start()
    yield served
    served.close()


def _ask(
    server: Server, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent.setdefault("Content-Length", str(len(body)))
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def _below(server: Server, path: str) -> str:
    return f"/{server.token}/{path}"


def test_the_page_and_its_headers(server: Server) -> None:
    answer, page = _ask(server, _below(server, ""))
    assert (answer.status, page[:15]) == (200, b"<!DOCTYPE html>")
    headers = dict(answer.getheaders())
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors http://127.0.0.1:* http://localhost:*" in headers["Content-Security-Policy"]
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert "Python" not in headers["Server"]
    tile, _ = _ask(server, _below(server, "case/0/slide/0/tile/0_0_0.jpg"))
    assert tile.getheader("Cache-Control") == "private, max-age=3600"


def test_a_head_has_no_body(server: Server) -> None:
    answer, body = _ask(server, _below(server, "run.json"), "HEAD")
    assert (answer.status, body) == (200, b"")
    assert int(answer.getheader("Content-Length")) > 100


@pytest.mark.parametrize(
    "path", ["/", "", "/run.json", "/x/run.json", "//run.json", "/%2f/run.json", "*", "/favicon.ico"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_without_the_token_nothing_is_told(server: Server, path: str, method: str) -> None:
    answer, body = _ask(server, path or "/", method, body=b"{}" if method == "POST" else None)
    assert answer.status == 403
    assert server.token.encode() not in body


def test_parts_of_the_token_are_not_enough(server: Server) -> None:
    for token in (server.token[:-1], server.token + "x", server.token.swapcase(), f" {server.token}"[1:-1]):
        assert _ask(server, f"/{token}/run.json")[0].status == 403
    assert len(server.token) >= 20


def test_addresses_are_relative_to_the_slash(server: Server) -> None:
    answer, _ = _ask(server, f"/{server.token}")
    assert (answer.status, answer.getheader("Location")) == (301, f"/{server.token}/")


@pytest.mark.parametrize(
    "path",
    ["../../../../etc/passwd", "static/..%2f..%2fserver.py", "static/%2e%2e/%2e%2e/routes.py", "static/../routes.py",
     "..%5c..%5cx", "/etc/passwd", "file:///etc/passwd", "static/%00", "case/0/slide/0/tile/../../../run.json"],
)  # fmt: skip
def test_paths_that_lead_outside_are_refused(server: Server, path: str) -> None:
    answer, body = _ask(server, _below(server, path))
    assert answer.status in (403, 404)
    assert b"root:" not in body
    assert b"import" not in body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    assert _ask(server, _below(server, "run.json"), method)[0].status in (405, 501)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_other_names_of_the_host_are_refused(server: Server, host: str, status: int) -> None:
    assert _ask(server, _below(server, "run.json"), Host=host)[0].status == status


def test_a_review_is_only_taken_as_json(server: Server) -> None:
    body = b'{"case": 0, "slide": null, "verdict": "agree", "note": "\xc3\xa9"}'
    saved, content = _ask(server, _below(server, "review"), "POST", body, Content_Type="application/json")
    assert (saved.status, json.loads(content)["saved"]["note"]) == (200, "é")
    refused = [
        ("review", body, {"Content_Type": "text/plain"}, 415),
        ("review", body, {}, 415),
        ("run.json", body, {"Content_Type": "application/json"}, 405),
        ("review", None, {"Content_Type": "application/json"}, 413),
        ("review", None, {"Content_Type": "application/json", "Content_Length": "200001"}, 413),
        ("review", None, {"Content_Type": "application/json", "Content_Length": "-1"}, 413),
        ("review", b"{}", {"Content_Type": "application/json"}, 400),
    ]
    for path, content, headers, status in refused:
        assert _ask(server, _below(server, path), "POST", content, **headers)[0].status == status
    longest = json.dumps({"case": 0, "verdict": "note", "note": "\U0001f600" * 10_000}).encode()
    assert _ask(server, _below(server, "review"), "POST", longest, Content_Type="application/json")[0].status == 200


def test_a_tile_that_is_not_there_is_a_sentence_and_the_server_goes_on(server: Server) -> None:
    answer, body = _ask(server, _below(server, "case/0/slide/0/tile/9_9_9.jpg"))
    assert (answer.status, body) == (404, b"slide 0 of case 0 has no tile 9_9_9\n")
    assert _ask(server, _below(server, "run.json"))[0].status == 200


def test_a_fault_is_a_sentence_and_the_server_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str) -> None:
        raise ZeroDivisionError(address)

    with monkeypatch.context() as patch:
        patch.setattr(server.routes, "get", fail)
        answer, body = _ask(server, _below(server, "run.json"))
    assert (answer.status, body) == (500, b"ZeroDivisionError: run.json\n")
    assert _ask(server, _below(server, "run.json"))[0].status == 200


def test_a_browser_that_closes_ends_nothing(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    for sent in (
        b"",
        b"GET ",
        f"GET {_below(server, 'run.json')} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
        b"\x16\x03\x01" * 50,
        b"A" * 70_000,
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closes with a reset
            client.sendall(sent)
    time.sleep(0.2)
    assert _ask(server, _below(server, "run.json"))[0].status == 200
    assert capfd.readouterr() == ("", "")


def test_many_ask_at_the_same_time(server: Server) -> None:
    paths = [f"case/{case}/slide/0/tile/1_{x}_{y}.jpg" for case in (0, 1) for x in (0, 1) for y in (0, 1)] * 10
    url = f"http://127.0.0.1:{server.port}/{server.token}/"
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda path: urllib.request.urlopen(url + path, timeout=30).read(), paths))
    assert len(set(zip(paths, found, strict=True))) == 8
    assert all(one[:2] == b"\xff\xd8" for one in found)


def test_many_connect_at_the_same_time(routes: Routes) -> None:
    with closing(Server(routes, "127.0.0.1", 0)) as waiting, ExitStack() as stack:  # it has not begun to answer
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", waiting.port), timeout=0.5))


def test_the_log_is_quiet_and_never_holds_the_token(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "e2e_abmilx"):
        _ask(server, _below(server, "run.json"))
        _ask(server, "/wrong/run.json")
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
    assert server.token not in caplog.text


def test_a_port_in_use_is_refused_with_the_cure(server: Server, routes: Routes) -> None:
    with pytest.raises(InputError, match=rf"port {server.port} is taken, maybe by another viewer; .*--port 0"):
        Server(routes, "127.0.0.1", server.port)
    with pytest.raises(InputError, match="port is 70000; it must lie between 0 and 65535"):
        Server(routes, "127.0.0.1", 70000)
    with pytest.raises(InputError, match=r"host is 192\.0\.2\.1, which is no address of this machine"):
        Server(routes, "192.0.2.1", 0)


def test_two_viewers_have_tokens_of_their_own(server: Server, routes: Routes) -> None:
    other = Server(routes, "127.0.0.1", 0)
    other.start()
    assert other.token != server.token
    assert _ask(other, _below(server, "run.json"))[0].status == 403
    assert _ask(other, _below(other, "run.json"))[0].status == 200
    other.close()
    with pytest.raises(ConnectionRefusedError):
        _ask(other, "/")
    again = Server(routes, "127.0.0.1", other.port)  # the port is free at once
    again.close()


def test_all_addresses_only_where_that_is_asked(routes: Routes) -> None:
    server = Server(routes, "0.0.0.0", 0)
    server.start()
    assert _ask(server, _below(server, "run.json"), Host="some.name")[0].status == 200
    assert _ask(server, "/run.json", Host="some.name")[0].status == 403
    server.close()
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "name")] == [
        True
    ] * 3 + [False] * 3


def test_waiting_ends_when_it_is_closed(routes: Routes) -> None:
    server = Server(routes, "127.0.0.1", 0)
    server.start()
    threading.Timer(0.3, server.close).start()
    server.wait()
