"""The page: cases, strips, keys, links, names of any kind, and access by keyboard and screen reader."""

import re
from pathlib import Path

import numpy as np
import pytest
from page_documents import STATIC, Case, Layer, Scale, Slide, write_export

VIEW = "() => Panes.list[0].view(false)"
HOSTILE = [
    "\"quoted\" & 'single'",
    "<img src=x onerror=alert(1)>",
    "50%25 #1 ?a=b",
    "Größe 大 😀\u202e",
    "a/../b\\c ",
    "{level}",
]
CURVE = {"months": [6, 12, 36, 60], "probability": [0.9, 0.8, 0.5, 0.4], "time": 30.1, "event": 1}


def _slide(seed: int = 0, **more) -> Slide:
    y, x = np.meshgrid(np.arange(16) * 64, np.arange(16) * 64, indexing="ij")
    coords = np.stack([x.ravel(), y.ravel()], 1)
    draws = np.random.default_rng(seed).gamma(0.7, 1.4, (3, len(coords)))
    draws[2] -= draws[2].mean()
    layers = [Layer(), Layer("head 1"), Layer("contribution to tumour", "", "diverging")]
    return Slide([[Scale(coords, 64.0, draws)]], layers=layers, **more)


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    """Eight cases: one with two slides, one without a map, and names that are hard."""
    note = "This case has no attention; run e2e-abmilx test --config <run>/fit.yaml"
    cases = [
        Case([_slide(1), _slide(2, name="second")], "first", survival=CURVE, facts=[("months", "30.1")]),
        Case([Slide([None], note="The slide file is gone; this is a mosaic of patches.")], "bare", note=note),
        *(Case([_slide(k, name=name)], name, label=name, facts=[(name, name)]) for k, name in enumerate(HOSTILE)),
    ]
    return write_export(tmp_path_factory.mktemp("page"), cases, title="<b>run</b>")


def _wait_for_case(page, name: str) -> None:
    page.wait_for_function(
        "(name) => document.getElementById('case-name').textContent === name && Panes.list[0].ready", arg=name
    )


def test_click_centres_the_patch(open_page, export: Path) -> None:
    page = open_page(export, "case=0", reduced_motion="no-preference")
    stage = page.locator(".stage").bounding_box()
    for end, position in (("highest", 0), ("lowest", 0), ("highest", 11), ("lowest", 11)):
        page.locator(f"#{end} button").nth(position).click()
        page.wait_for_timeout(700)  # the flight takes half a second
        patch = page.evaluate(f"() => App.state.maps[0][0].{end}[{position}].patch")
        x, y = (patch % 16 + 0.5) * 64, (patch // 16 + 0.5) * 64
        view = page.evaluate("() => Panes.list[0].view(true)")
        assert abs(view["x"] - x) <= 1
        assert abs(view["y"] - y) <= 1
        mark = page.locator(".mark").bounding_box()
        assert mark["x"] + mark["width"] / 2 == pytest.approx(stage["x"] + stage["width"] / 2, abs=1.5)
        assert mark["width"] == pytest.approx(64 * view["zoom"], rel=0.01)
        rank = page.locator(f"#{end} button").nth(position).text_content()
        assert f"rank {rank} of 512" in page.locator(".readout").text_content()


def test_names_are_inert(open_page, export: Path) -> None:
    page = open_page(export)
    assert page.locator("#title").text_content() == "<b>run</b>"
    for number, name in enumerate(HOSTILE):
        page.locator("#case-list button").nth(number + 2).click()
        _wait_for_case(page, name)
        assert page.locator("#facts dt").text_content() == name
        assert page.locator("#facts dd").text_content() == name
        assert page.locator("#case-list .name").nth(number + 2).text_content() == name
    assert page.locator("img[onerror], #title b").count() == 0


def test_link_shows_the_same_view(open_page, export: Path) -> None:
    said = (
        "case=0&slide=1&x=400.25&y=610.5&zoom=1.7&layer=contribution+to+tumour&scale=0&colours=magma"
        "&opacity=0.8&curtain=0.3&threshold=0.25"
    )
    page = open_page(export, said)
    page.wait_for_timeout(400)
    written = page.evaluate("() => location.hash.slice(1)")
    assert written == said
    state = page.evaluate("() => ({ ...Settings.values, slide: App.state.slide, ...Panes.list[0].view() })")
    assert state["x"] == pytest.approx(400.25, abs=0.01)
    assert state["zoom"] == pytest.approx(1.7, rel=1e-6)
    assert (state["slide"], state["layer"], state["threshold"]) == (1, "contribution to tumour", 0.25)
    page.evaluate("() => Panes.list[0].panBy(0.1, 0)")  # what people do changes the link
    page.locator("#opacity").fill("0.4")
    page.wait_for_timeout(500)
    moved = page.evaluate("() => location.hash")
    again = open_page(export, moved[1:])
    again.wait_for_timeout(400)
    assert again.evaluate("() => location.hash") == moved
    assert "opacity=0.4" in moved
    assert "x=400.25" not in moved


@pytest.mark.parametrize(
    "said",
    [
        "case=99&slide=-1&x=NaN&y=1e999&zoom=0",
        "case=0&slide=7&layer=nothing&scale=12&colours=jet&opacity=2&curtain=-1&threshold=x",
        "case=__proto__&layer=%E0%A4%A&colours=toString&%%%&=&x=1&y=2&zoom=-3",
        "<script>alert(1)</script>",
        "case=0&x=1e8&y=-1e8&zoom=900",
    ],
)
def test_foreign_values_in_the_link_are_ignored(open_page, export: Path, said: str) -> None:
    page = open_page(export, said)
    _wait_for_case(page, "first")
    values = page.evaluate("() => Settings.values")
    assert values["layer"] == "mean attention"
    assert values["colours"] == "viridis"
    assert (values["opacity"], values["curtain"], values["threshold"]) == (0.5, 0, None)
    assert np.isfinite(list(page.evaluate(VIEW).values())).all()
    assert page.locator("#problem").is_hidden()


def test_a_pasted_link_is_followed(open_page, export: Path) -> None:
    page = open_page(export, "case=0")
    page.evaluate("() => { location.hash = '#case=4&x=100&y=200&zoom=2&layer=rank'; }")
    _wait_for_case(page, HOSTILE[2])
    page.wait_for_function("() => Math.abs(Panes.list[0].view().x - 100) < 0.01")
    assert page.locator("#layer").input_value() == "rank"


def test_a_link_pasted_right_after_a_change_is_followed(open_page, export: Path) -> None:
    """The page writes its address 150 ms after a change; a link pasted just before must not be overwritten."""
    page = open_page(export, "case=0")
    page.wait_for_timeout(400)
    page.evaluate(
        """() => {
            setTimeout(() => { location.hash = '#case=4&x=100&y=200&zoom=2&layer=rank'; }, 150);
            Settings.change({ opacity: 0.3 });
            const end = performance.now() + 200;
            while (performance.now() < end);  // both are due: the link, then the write, then the event of the link
        }"""
    )
    _wait_for_case(page, HOSTILE[2])
    page.wait_for_function("() => Math.abs(Panes.list[0].view().x - 100) < 0.01")
    assert page.locator("#layer").input_value() == "rank"


def test_case_without_a_map(open_page, export: Path) -> None:
    page = open_page(export, "case=1")
    assert "e2e-abmilx test --config <run>/fit.yaml" in page.locator("#note").text_content()
    assert "mosaic of patches" in page.locator("#note").text_content()
    assert page.locator("#layer").is_disabled()
    assert page.locator("#legend").is_hidden()
    page.keyboard.press("k")
    _wait_for_case(page, "first")
    assert page.locator("#layer").is_enabled()


def test_slides_of_a_case(open_page, export: Path) -> None:
    page = open_page(export, "case=0&layer=head+1")
    page.locator("#slide").select_option("second")
    page.wait_for_function("() => App.state.slide === 1 && Panes.list[0].ready")
    assert page.locator("#layer").input_value() == "head 1"


def test_survival_curve(open_page, export: Path) -> None:
    page = open_page(export, "case=0")
    assert "event at 30.1 months" in page.locator("#survival svg").get_attribute("aria-label")
    box = {"left": 30, "right": 252, "top": 8, "bottom": 102}
    marked = page.locator("#survival .event")
    x = box["left"] + 30.1 / 60 * (box["right"] - box["left"])
    y = box["top"] + (1 - 0.8) * (box["bottom"] - box["top"])  # 0.8 since 12 months
    assert float(marked.get_attribute("cx")) == pytest.approx(x, abs=0.1)
    assert float(marked.get_attribute("cy")) == pytest.approx(y, abs=0.1)


def test_the_order_is_only_stated_where_there_is_one(open_page, tmp_path: Path) -> None:
    counts = []
    for known in ([0.1, 0.2], [0.1, None], [None]):
        folder = tmp_path / str(len(counts))
        page = open_page(write_export(folder, [Case([_slide()], f"{k}", correctness=c) for k, c in enumerate(known)]))
        counts.append(page.locator("#cases-count").text_content())
    assert counts == ["2 cases, most wrong first", "2 cases, most wrong first; 1 cannot be judged", "1 case"]


def test_a_link_to_a_place_far_outside_shows_the_slide(open_page, export: Path) -> None:
    page = open_page(export, "case=0&x=1e9&y=-1e9&zoom=2&layer=rank&threshold=-5")
    stage, view = page.locator(".stage").bounding_box(), page.evaluate(VIEW)
    assert abs(view["x"] - 512) < 512 + stage["width"] / view["zoom"] / 2  # a part of it is inside
    assert abs(view["y"] - 512) < 512 + stage["height"] / view["zoom"] / 2
    assert page.locator("#threshold-value").text_content() == "all shown"


def test_resolutions_are_short(open_page, tmp_path: Path) -> None:
    page = open_page(write_export(tmp_path, [Case([_slide(mpp=0.2499871236540001)])]))
    assert "0.25 µm/px" in page.locator("#slide-facts").text_content()


def test_filter_and_keys(open_page, export: Path) -> None:
    page = open_page(export, "case=0")
    page.keyboard.press("j")
    _wait_for_case(page, "bare")
    page.keyboard.press("/")
    page.keyboard.type("FIRST")
    assert page.locator("#case-list li:visible").count() == 1
    assert page.locator("#cases-count").text_content() == "1 of 8 cases"
    page.keyboard.type("jjkkh ")  # in a field keys are letters
    assert page.locator("#filter").input_value() == "FIRSTjjkkh "
    assert page.locator("#case-name").text_content() == "bare"
    assert not page.locator("#help").is_visible()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert page.locator("#case-list li:visible").count() == 8
    page.locator("#case-list button").nth(1).focus()
    page.keyboard.press("?")
    assert "next case" in page.locator("#help").text_content()
    page.keyboard.press("j")  # the dialog is on top
    assert page.locator("#case-name").text_content() == "bare"
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    _wait_for_case(page, "first")
    page.keyboard.press("k")  # there is none before the first
    page.wait_for_timeout(100)
    assert page.locator("#case-name").text_content() == "first"


def test_exported_copies_cannot_be_reviewed(open_page, export: Path) -> None:
    page = open_page(export)
    assert page.locator("#review").is_hidden()
    page.keyboard.press("h")
    assert "agree" not in page.locator("#help").text_content()


def _tab_through(page) -> list[str]:
    """Press Tab until the focus is where it began; return what had it."""
    page.evaluate("() => document.activeElement.blur()")
    seen: list[str] = []
    for _ in range(120):
        page.keyboard.press("Tab")
        name = page.evaluate(
            """() => {
                const element = document.activeElement;
                if (element === document.body) return "";
                const all = [...document.querySelectorAll("*")];
                const style = getComputedStyle(element);
                const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
                return `${all.indexOf(element)} ${ring ? "ring" : "bare"}`;
            }"""
        )
        if name in seen:
            break
        if name:
            seen.append(name)
    return seen


@pytest.mark.parametrize("width", [1400, 800])
def test_keyboard_reaches_every_control_and_the_focus_shows(open_page, export: Path, width: int) -> None:
    page = open_page(export, "case=0", viewport={"width": width, "height": 900})
    wanted = page.evaluate(
        """() => {
            const all = [...document.querySelectorAll("*")];
            const controls = all.filter((e) => e.matches("button, select, input, textarea, a[href], [tabindex='0']"));
            return controls.filter((e) => !e.disabled && e.checkVisibility()).map((e) => all.indexOf(e));
        }"""
    )
    seen = _tab_through(page)
    assert len(wanted) > 30
    assert {int(name.split()[0]) for name in seen} >= set(wanted)
    assert [name for name in seen if name.endswith("bare")] == []


def test_controls_work_by_keyboard(open_page, export: Path) -> None:
    page = open_page(export, "case=0")
    values = "() => Settings.values"
    page.locator("#layer").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(values)["layer"] == "head 1"
    page.locator("#colours").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(values)["colours"] == "magma"
    for name in ("opacity", "threshold", "curtain"):
        before = page.evaluate(values)[name]
        page.locator(f"#{name}").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate(values)[name] != before
    page.locator("#shown").focus()
    page.keyboard.press(" ")
    assert page.evaluate(values)["shown"] is False
    page.locator(".openseadragon-canvas").focus()
    before = page.evaluate(VIEW)
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    after = page.evaluate(VIEW)
    assert after["zoom"] > before["zoom"]
    assert after["x"] > before["x"]
    for key in ("r", "f", "w", "s"):  # keys of OpenSeadragon that turn or move the slide
        page.keyboard.press(key)
    assert page.evaluate(VIEW) == after
    assert page.evaluate(
        "() => [Panes.list[0].viewer.viewport.getRotation(), Panes.list[0].viewer.viewport.getFlip()]"
    ) == [0, False]
    page.locator("#highest button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".mark").is_visible()
    page.locator("#case-list button").nth(2).focus()
    page.keyboard.press("Enter")
    _wait_for_case(page, HOSTILE[0])


def _faults(page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [
        f"{fault['id']}: {node['html']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 1400), ("light", 800)])
def test_axe_finds_no_serious_fault(open_page, export: Path, scheme: str, width: int) -> None:
    pytest.importorskip("axe_playwright_python")
    page = open_page(export, "case=0", color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    assert _faults(page) == []
    page.keyboard.press("h")
    assert _faults(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    _wait_for_case(page, "bare")
    assert _faults(page) == []


def test_no_horizontal_scroll(open_page, export: Path) -> None:
    page = open_page(export, "case=3")
    for width in (1400, 1100, 800, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(50)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.locator("#cases").is_hidden()
    page.locator("#cases-toggle").click()
    page.locator("#case-list button").first.click()
    _wait_for_case(page, "first")
    assert page.locator("#cases").is_hidden()


def test_broken_case_is_told(open_page, tmp_path: Path) -> None:
    page = write_export(tmp_path, [Case([_slide()], "whole"), Case([_slide()], "broken")])
    (tmp_path / "data/case-1.js").write_text("not a document", encoding="utf-8")
    tab = open_page(page, expect=("Unexpected identifier",))
    tab.keyboard.press("j")
    tab.wait_for_function("() => !document.getElementById('problem').hidden")
    assert "data/case-1.js holds no document" in tab.locator("#problem").text_content()
    tab.keyboard.press("k")
    _wait_for_case(tab, "whole")
    tab.wait_for_function("() => document.getElementById('problem').hidden")


def test_scripts_are_short_and_listed() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    scripts = sorted(path.name for path in STATIC.glob("*.js"))
    assert sorted(re.findall(r'<script src="static/([^"]+)"></script>', page)) == scripts
    for name in scripts:
        text = (STATIC / name).read_text(encoding="utf-8")
        assert "sourceMappingURL" not in text  # the browser's tools would ask for it
        assert name == "openseadragon.min.js" or len(text.splitlines()) <= 300
    assert "Redistribution and use" in (STATIC / "openseadragon.LICENSE.txt").read_text(encoding="utf-8")


def test_case_without_a_slide(open_page, tmp_path: Path) -> None:
    """What was drawn before goes away."""
    page = open_page(write_export(tmp_path, [Case([_slide()], "drawn"), Case([], "none", note="No slide is left.")]))
    page.locator("#highest button").first.click()
    page.keyboard.press("j")
    page.wait_for_function("() => document.getElementById('case-name').textContent === 'none'")
    assert page.locator("#note").text_content() == "No slide is left."
    assert page.locator("#highest button").count() == 0
    assert page.locator(".mark").is_hidden()
    assert page.locator(".readout").text_content() == ""
    assert page.locator("#layer").is_disabled()
    page.keyboard.press("k")
    _wait_for_case(page, "drawn")


def test_numbers_are_short(open_page, export: Path) -> None:
    page = open_page(export)
    shown = [
        (-0.0, "0.000"),
        (0.0123, "0.012"),
        (-0.5, "−0.500"),
        (3.14159, "3.14"),
        (42.25, "42.3"),
        (1234.6, "1,235"),
    ]
    for value, text in shown:
        assert page.evaluate("(value) => Numbers.short(value)", value) == text
    assert page.evaluate("() => Numbers.short(-0.00012)") == "−1.2e−4"
