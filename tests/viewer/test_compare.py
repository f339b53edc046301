"""Two runs side by side: the panes stay together, each with the layers of its run."""

from pathlib import Path

import numpy as np
import pytest
from page_documents import Case, Layer, Scale, Slide, write_export

VIEWS = "() => Panes.list.map((pane) => pane.view())"


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    y, x = np.meshgrid(np.arange(16) * 64, np.arange(16) * 64, indexing="ij")
    coords = np.stack([x.ravel(), y.ravel()], 1)
    draws = np.random.default_rng(0).gamma(0.7, 1.4, (2, 2, len(coords)))
    maps = [[Scale(coords, 64.0, values)] for values in draws]
    slide = Slide(maps, layers=[Layer(), Layer("head 1")])
    alone = Slide([maps[0], None], layers=[Layer(), Layer("head 1")])
    coarse = [Scale(coords[::4], 128.0, draws[1][:, ::4], mpp=1.0)]
    scales = Slide([[*maps[0], *coarse], coarse], layers=[Layer(), Layer("head 1")])
    folder = tmp_path_factory.mktemp("compare")
    cases = [Case([slide], "both"), Case([alone], "one"), Case([scales], "scales")]
    return write_export(folder, cases, runs=("runs/demo", "runs/other"))


def _locked(page) -> None:
    first, second = page.evaluate(VIEWS)
    assert second == pytest.approx(first, abs=1e-3)


def test_panes_stay_locked(open_page, export: Path) -> None:
    page = open_page(export, "case=0&x=500&y=480&zoom=0.9", reduced_motion="no-preference")
    page.wait_for_timeout(200)
    _locked(page)
    boxes = [page.locator(".stage").nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]["width"] == boxes[1]["width"]
    for number, box in enumerate(boxes):
        before = page.evaluate(VIEWS)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 60, y + 25, steps=5)
        page.mouse.up()
        page.mouse.wheel(0, -200)
        for _ in range(8):
            page.wait_for_timeout(50)
            first, second = page.evaluate(VIEWS)
            assert second["x"] == pytest.approx(first["x"], abs=0.5)  # also while they move
        page.wait_for_timeout(600)
        _locked(page)
        after = page.evaluate(VIEWS)
        assert after[number]["x"] > before[number]["x"] + 20
        assert after[number]["zoom"] > before[number]["zoom"]
    page.locator("#highest button").first.click()
    page.wait_for_timeout(900)
    _locked(page)
    assert page.locator(".mark:visible").count() == 2


def test_both_panes_follow_a_resized_window(open_page, export: Path) -> None:
    page = open_page(export, "case=0&x=500&y=480&zoom=0.9")
    page.set_viewport_size({"width": 1180, "height": 800})
    page.wait_for_timeout(400)
    _locked(page)


def test_each_pane_has_the_values_of_its_run(open_page, export: Path) -> None:
    page = open_page(export, "case=0&layer=head+1")
    assert [name for name in page.locator(".pane > p").all_text_contents()] == ["runs/demo", "runs/other"]
    found = page.evaluate("() => Panes.list.map((pane) => pane.overlay.at(32, 32).value)")
    draws = np.random.default_rng(0).gamma(0.7, 1.4, (2, 2, 256))
    assert found == pytest.approx([draws[0, 1, 0], draws[1, 1, 0]], rel=2e-3)
    low, high = page.evaluate("() => Panes.list.map((pane) => pane.overlay.range.high)")
    assert low == high  # one colour bar for both


def test_run_without_a_map_says_so(open_page, export: Path) -> None:
    page = open_page(export, "case=1")
    assert page.locator(".foot").nth(1).get_by_text("This run has no map of this slide.").is_visible()
    assert page.evaluate("() => Panes.list.map((pane) => pane.overlay.rasters.length > 0)") == [True, False]


def test_panes_show_the_same_scale_or_say_which(open_page, export: Path) -> None:
    page = open_page(export, "case=2&scale=0")
    other = page.locator(".foot").nth(1)
    shown = "() => Panes.list.map((pane) => pane.overlay.scale.mpp)"
    assert page.evaluate(shown) == [0.5, 1]
    assert other.get_by_text("This run has no patches of 0.5 µm/px here: these are of 1 µm/px.").is_visible()
    page.locator("#scale").select_option("1")
    assert page.evaluate(shown) == [1, 1]
    assert "no patches" not in other.text_content()


def test_the_strips_say_which_run_they_are_of(open_page, export: Path) -> None:
    page = open_page(export, "case=0")
    assert page.locator("#highest-title").text_content() == "Highest attention, demo"
    assert page.locator("#lowest-title").get_attribute("title") == "runs/demo"
