"""Addresses below the token."""

import json
from pathlib import Path

import pytest
from viewed_runs import copy_data, write_viewed_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer.routes import STATIC, Routes
from e2e_abmilx.viewer.viewed_run import NotFoundError, ViewedRun


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> Routes:
    folder = tmp_path_factory.mktemp("routes")
    data = copy_data(folder / "data", cohort, stores, {"slide-000": "slide-000"})
    return Routes(ViewedRun(write_viewed_run(folder / "run", data, {"case": ["slide-000"]})))


def test_every_address_of_the_documents_gives_something(routes: Routes) -> None:
    run = json.loads(routes.get("run.json").body)
    case = json.loads(routes.get("case/0.json").body)
    (slide,) = case["slides"]
    urls = [run["cases"][0]["thumbnail"], slide["picture"]["url"].format(level=1, x=1, y=0)]
    urls += [patch["url"] for strip in ("highest", "lowest") for patch in slide["maps"][0][strip]]
    for url in urls:
        answer = routes.get(url)
        assert (answer.kind, answer.body[:2], answer.keep) == ("image/jpeg", b"\xff\xd8", 3600)
    assert routes.get("").body == routes.get("index.html").body == (STATIC / "index.html").read_bytes()
    for path in STATIC.iterdir():
        answer = routes.get(f"static/{path.name}")
        assert answer.body == path.read_bytes()
        assert answer.keep == 0


@pytest.mark.parametrize(
    "address",
    [
        "static/../server.py", "static/..%2fserver.py", "static/%2e%2e/server.py", "static//etc/passwd", "/etc/passwd",
        "../run.json", "static/", "static/.", "static/..", "static", "run.json/", "RUN.JSON", "case/-1.json", "case/٣.json",
        "case/0.json\n", "case/00000000000000000000.json", "case/1e3.json", "case/0/slide/0/tile/0_0_-1.jpg",
        "case/0/slide/0/tile/0_0_0.png", "case/0/slide/0/tile/{level}_{x}_{y}.jpg", "case/0/../../run.json", "review",
        "case/999999999.json", "case/0/slide/999999999/tile/0_0_0.jpg", "case/0/slide/0/tile/999999999_0_0.jpg",
        "case/0/slide/0/patch/0_999999999_0.jpg",
    ],
)  # fmt: skip
def test_nothing_else_is_there(routes: Routes, address: str) -> None:
    with pytest.raises(NotFoundError):
        routes.get(address)


def test_a_review_is_saved(routes: Routes) -> None:
    sent = {"case": 0, "slide": 0, "verdict": "disagree", "note": 'a "b"\n', "x_um": 1, "y_um": 2.5}
    saved = json.loads(routes.save_review(json.dumps(sent).encode()).body)["saved"]
    assert {name: saved[name] for name in ("verdict", "note", "slide", "x_um", "y_um")} == {
        "verdict": "disagree", "note": 'a "b"\n', "slide": "slide-000", "x_um": "1.00", "y_um": "2.50",
    }  # fmt: skip
    routes.save_review(b'{"case": 0, "slide": null, "verdict": "agree"}')
    case = json.loads(routes.get("case/0.json").body)
    assert [one["verdict"] for one in case["reviews"]] == ["disagree", "agree"]
    assert json.loads(routes.get("run.json").body)["cases"][0]["verdict"] == "agree"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "no JSON"), (b"\xff", "no JSON"), (b"[" * 100_000, "no JSON"), (b"[]", "names no case"),
        (b'{"case": true, "verdict": "agree"}', "names no case"), (b'{"case": "0", "verdict": "agree"}', "names no case"),
        (b'{"case": 7, "verdict": "agree"}', "there is no case 7"),
        (b'{"case": 0, "slide": 1, "verdict": "agree"}', "has 1 slides"),
        (b'{"case": 0, "slide": -1, "verdict": "agree"}', "has 1 slides"),
        (b'{"case": 0, "verdict": "perhaps"}', "must be one of agree"),
        (b'{"case": 0, "verdict": ["agree"]}', "must be one of agree"),
        (b'{"case": 0, "verdict": "agree", "note": ["x"]}', "no text"),
        (b'{"case": 0, "verdict": "agree", "x_um": NaN}', "must be a number"),
    ],
)  # fmt: skip
def test_what_is_no_review_is_refused(routes: Routes, body: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        routes.save_review(body)
