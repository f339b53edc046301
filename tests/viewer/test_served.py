"""The page with its server: it shows what the copy shows, and keeps reviews."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from viewed_runs import WEIRD, copy_data, write_viewed_run

from e2e_abmilx.viewer import Viewer, view
from e2e_abmilx.viewer.export import export_cases

OVERLAY = "() => Panes.list[0].overlay.canvas.toDataURL()"
VIEW = "x=260&y=240&zoom=1.1&opacity=0.7&curtain=0.2"


@pytest.fixture(scope="module")
def data(cohort: Path, stores: Path, tmp_path_factory) -> Path:
    names = sorted(path.stem for path in stores.glob("*.zarr"))
    return copy_data(tmp_path_factory.mktemp("data"), cohort, stores, {"a": names[0], "b": names[1], "c": names[2]})


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    return write_viewed_run(tmp_path / "run", data, {"one": ["a"], WEIRD[0]: ["b", "c"], WEIRD[3]: ["c"]})


@pytest.fixture
def viewer(run: Path) -> Iterator[Viewer]:
    with view(run) as started:
        yield started


def _show(page, name: str) -> None:
    page.locator("#case-list button", has=page.get_by_text(name, exact=True)).click()
    page.wait_for_function(
        "(name) => document.getElementById('case-name').textContent === name && Panes.list[0].ready", arg=name
    )


def test_copy_shows_the_same(open_page, viewer: Viewer, run: Path, tmp_path: Path) -> None:
    export_cases(run, tmp_path / "copy")
    served, copied = open_page(viewer.url), open_page(tmp_path / "copy/index.html")
    for name in ("one", WEIRD[0], WEIRD[3]):
        for page in (served, copied):
            _show(page, name)
        for layer in ("mean attention", "head 2", "contribution to log-odds of 1", "rank"):
            pictures = []
            for page in (served, copied):
                page.bring_to_front()  # pages behind others draw no frames
                case = page.evaluate("() => App.state.id")
                page.evaluate("(hash) => { location.hash = hash; }", f"#case={case}&{VIEW}&layer={layer}")
                page.wait_for_function("(layer) => Panes.list[0].overlay.layer.name === layer", arg=layer)
                page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
                pictures.append(page.evaluate(OVERLAY))
            assert pictures[0] == pictures[1]
            assert len(pictures[0]) > 3000  # it is not empty
    shots = []
    for page in (served, copied):
        page.bring_to_front()
        page.wait_for_timeout(300)
        data = page.locator(".stage").screenshot()
        shots.append(np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int))
    assert np.abs(shots[0] - shots[1]).mean() < 4  # the tiles and the copy's picture are different JPEGs


def test_reviews_are_saved_and_shown(open_page, viewer: Viewer, run: Path) -> None:
    page = open_page(viewer.url)
    _show(page, WEIRD[0])
    note = 'lesion at the edge; "sure"\n<b>second</b> line, jkadfn h?'
    page.locator("#note-text").fill(note)
    page.get_by_role("button", name="disagree", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#reviews li').length === 1")
    assert page.locator("#note-text").input_value() == ""
    assert page.locator("#reviews li span").text_content() == note
    assert page.locator(".case[aria-current] .verdict").text_content() == "disagree"
    page.locator(".openseadragon-canvas").focus()
    page.keyboard.press("n")
    page.keyboard.type("plain note, agree or disagree")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('#reviews li').length === 2")
    assert page.locator(".case[aria-current] .verdict").text_content() == "disagree"
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    page.wait_for_function("() => document.querySelectorAll('#reviews li').length === 3")
    assert page.locator(".case[aria-current] .verdict").text_content() == "artefact"
    kept = pd.read_csv(run / "review.csv", keep_default_na=False)
    assert kept["verdict"].tolist() == ["disagree", "note", "artefact"]
    assert kept["case"].tolist() == [WEIRD[0]] * 3
    assert kept["note"].tolist() == [note, "plain note, agree or disagree", ""]
    again = open_page(viewer.url)
    _show(again, WEIRD[0])
    assert again.locator("#reviews li").count() == 3
    assert again.locator("#reviews li b").first.text_content() == "artefact"  # the newest first


def test_note_is_kept_when_it_cannot_be_saved(open_page, viewer: Viewer) -> None:
    page = open_page(viewer.url, expect=("Failed to load resource", "ERR_", "Tile %s failed"))
    page.locator("#note-text").fill("x" * 10_001)
    page.locator("#note-save").click()
    page.wait_for_function("() => !document.getElementById('review-problem').hidden")
    assert "a note has at most 10,000 characters" in page.locator("#review-problem").text_content()
    page.locator("#note-text").fill("worth keeping")
    page.context.set_offline(True)
    page.locator("#note-save").click()
    page.wait_for_function("() => document.getElementById('review-problem').textContent.includes('still running')")
    assert page.locator("#note-text").input_value() == "worth keeping"
    assert page.locator("#reviews li").count() == 0


@pytest.mark.parametrize("width", [467, 800, 1100, 1400])
def test_a_long_note_leaves_the_title_its_place(open_page, run: Path, width: int) -> None:
    table = pd.read_csv(run / "predictions.csv").assign(std_probability_0=0.1)  # of an ensemble, which is told
    table.to_csv(run / "predictions.csv", index=False)
    (run / "review.csv").write_text("damaged\n")
    with view(run) as started:
        page = open_page(started.url, viewport={"width": width, "height": 800})
        assert "has no column case" in page.locator("#run-note").text_content()
        assert page.locator("#title").bounding_box()["width"] > 100
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_viewer_that_has_ended_is_named(open_page, viewer: Viewer) -> None:
    page = open_page(viewer.url, expect=("Failed to load resource", "ERR_", "Tile %s failed"))
    page.context.set_offline(True)
    page.locator("#case-list button").nth(1).click()
    page.wait_for_function("() => !document.getElementById('problem').hidden")
    told = "The case cannot be shown: no answer; check that e2e-abmilx view is still running."
    assert page.locator("#problem").text_content() == told


def test_served_names_are_inert(open_page, viewer: Viewer) -> None:
    page = open_page(viewer.url)
    for name in (WEIRD[0], WEIRD[3]):
        _show(page, name)
        assert page.locator("#case-name").text_content() == name
    assert page.locator("#case-name *, .name *").count() == 0


def test_two_runs_are_compared(open_page, run: Path, data: Path, tmp_path: Path) -> None:
    other = write_viewed_run(tmp_path / "other", data, {"one": ["a"]})
    with view(run, other) as viewer:
        page = open_page(viewer.url)
        _show(page, "one")
        assert page.locator(".pane").count() == 2
        assert page.evaluate("() => Panes.list.every((pane) => pane.overlay.rasters.length > 0)")
        _show(page, WEIRD[3])
        assert page.evaluate("() => Panes.list.map((pane) => pane.overlay.rasters.length > 0)") == [True, False]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_review_is_accessible(open_page, viewer: Viewer, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(viewer.url, color_scheme=scheme, bypass_csp=True)
    page.get_by_role("button", name="artefact", exact=True).focus()
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelectorAll('#reviews li').length === 1")
    faults = axe.run(page, options={"preload": False}).response["violations"]
    assert [fault["id"] for fault in faults if fault["impact"] in ("serious", "critical")] == []


def test_an_unsaved_note_stays_with_its_case(open_page, viewer: Viewer, run: Path) -> None:
    page = open_page(viewer.url)
    _show(page, "one")
    page.locator("#note-text").fill("about one")
    _show(page, WEIRD[0])
    assert page.locator("#note-text").input_value() == ""
    page.get_by_role("button", name="agree", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#reviews li').length === 1")
    _show(page, "one")
    assert page.locator("#note-text").input_value() == "about one"
    page.locator("#note-save").click()
    page.wait_for_function("() => document.querySelectorAll('#reviews li').length === 1")
    kept = pd.read_csv(run / "review.csv", keep_default_na=False)
    assert list(zip(kept["case"], kept["note"], strict=True)) == [(WEIRD[0], ""), ("one", "about one")]


def test_no_verdict_is_given_on_a_case_that_is_not_shown_yet(open_page, viewer: Viewer, run: Path) -> None:
    page = open_page(viewer.url)
    _show(page, "one")
    held = []
    page.route("**/case/*.json", lambda route: held.append(route))  # the documents of cases take their time
    page.locator("#case-list button").filter(has_text="quoted").click()
    page.keyboard.press("a")
    page.wait_for_function("() => !document.getElementById('review-problem').hidden")
    assert not (run / "review.csv").exists()
    for route in held:
        route.continue_()
    page.wait_for_function("(name) => document.getElementById('case-name').textContent === name", arg=WEIRD[0])
    page.keyboard.press("a")
    page.wait_for_function("() => document.querySelectorAll('#reviews li').length === 1")
    assert pd.read_csv(run / "review.csv")["case"].tolist() == [WEIRD[0]]
