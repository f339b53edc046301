"""The overlay lies where the patches are, whatever the zoom, the window and the screen."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from numpy.typing import NDArray
from page_documents import Case, Layer, Scale, Slide, write_export
from PIL import Image

from e2e_abmilx.store import PatchStore

YELLOW = (253, 231, 37)  # the upper end of viridis
MARGIN = 16  # the pane has round corners
FURNITURE = "for (const part of document.querySelectorAll('.furniture')) part.style.visibility = 'hidden'"


def _screenshot(page, selector: str = ".stage") -> NDArray[np.uint8]:
    page.wait_for_timeout(60)
    data = page.locator(selector).first.screenshot(scale="device")
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _drawn(page) -> NDArray[np.bool_]:
    page.evaluate(FURNITURE)
    return (np.abs(_screenshot(page).astype(int) - YELLOW) <= 3).all(axis=2)


def _expected(boxes: NDArray[np.floating], view: tuple[float, float, float], shape, ratio: float) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie in level-0 boxes (x0, y0, x1, y1), from the view alone."""
    x, y, zoom = view
    height, width = shape
    columns = x + ((np.arange(width) + 0.5) - width / 2) / (zoom * ratio)
    rows = y + ((np.arange(height) + 0.5) - height / 2) / (zoom * ratio)
    mask = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        mask |= ((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))
    return mask


def _iou(page, boxes, view, ratio: float = 1) -> float:
    drawn = _drawn(page)
    expected = _expected(boxes, view, drawn.shape, ratio)
    assert 0.005 < expected.mean() < 0.995  # so that the measure means something
    return (drawn & expected).sum() / (drawn | expected).sum()


def _move(page, view) -> None:
    page.evaluate("(hash) => { location.hash = hash; }", _address(view))
    page.wait_for_function("(zoom) => Math.abs(Panes.list[0].view().zoom - zoom) < 1e-9 * zoom", arg=view[2])
    _wait_for_frames(page)


def _wait_for_frames(page) -> None:
    """Wait until what lies on the slide has followed the viewport, which it does in the next frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def _address(view, **more) -> str:
    x, y, zoom = view
    parts = {"case": 0, "slide": 0, "x": x, "y": y, "zoom": zoom, "opacity": 1, "threshold": 0.5, **more}
    return "&".join(f"{name}={value}" for name, value in parts.items())


@pytest.fixture(scope="module")
def lesion(cohort: Path, stores: Path, tmp_path_factory) -> tuple[Path, NDArray[np.floating]]:
    """An export of a synthetic slide whose layer is 1 on patches of the lesion, and the boxes of these patches."""
    for path in sorted(stores.glob("*.zarr")):
        mask = np.asarray(Image.open(cohort / "masks" / f"{path.stem}.png").convert("L")) > 0
        if mask.any():
            break
    with Image.open(cohort / "slides" / f"{path.stem}.tiff") as image:
        picture = np.asarray(image.convert("RGB"))
    store = PatchStore(path)
    coords, footprint = store.coords(0), float(store.attributes["footprints"][0])
    step = picture.shape[0] / mask.shape[0]
    inside = np.array([mask[tuple(int((v + footprint / 2) / step) for v in (y, x))] for x, y in coords])
    assert 0 < inside.sum() < len(inside)
    page = write_export(
        tmp_path_factory.mktemp("lesion"),
        [Case([Slide([[Scale(coords, footprint, inside[None].astype(float))]], picture)])],
    )
    return page, np.hstack([coords, coords + footprint])[inside]


def test_planted_lesion(open_page, lesion) -> None:
    path, boxes = lesion
    x, y = boxes[0, 2] - 10.3, boxes[0, 3] - 7.7
    page = open_page(path, _address((x, y, 1.0)))
    for zoom in (0.8, 2.3, 6.0):
        _move(page, (x, y, zoom))
        assert _iou(page, boxes, (x, y, zoom)) >= 0.98


def test_after_the_window_has_another_size(open_page, lesion) -> None:
    path, boxes = lesion
    view = (*boxes[0, :2], 1.3)
    page = open_page(path, _address(view))
    page.set_viewport_size({"width": 1150, "height": 700})
    page.wait_for_timeout(300)
    now = page.evaluate("() => Panes.list[0].view()")
    assert now["zoom"] == pytest.approx(view[2], rel=1e-6)
    assert _iou(page, boxes, (now["x"], now["y"], view[2])) >= 0.98


def test_dense_screen(open_page, lesion) -> None:
    path, boxes = lesion
    view = (*boxes[0, :2], 1.7)
    assert _iou(open_page(path, _address(view), device_scale_factor=2), boxes, view, ratio=2) >= 0.98


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_slide_lies_under_its_overlay(open_page, tmp_path: Path, ratio: int) -> None:
    """Green squares in the picture, whose sides no level halves evenly, are where the same view has the overlay."""
    picture = np.full((779, 1021, 3), 255, np.uint8)
    corners = np.array([[64, 64], [512, 200], [832, 648], [320, 584]])
    for x, y in corners:
        picture[y : y + 128, x : x + 128] = (0, 160, 0)
    slide = Slide([[Scale(corners, 128.0, np.ones((1, 4)))]], picture)
    boxes = np.hstack([corners, corners + 128])
    view = (520.3, 390.7, 0.41)
    page = open_page(write_export(tmp_path, [Case([slide])]), _address(view), device_scale_factor=ratio)
    page.evaluate(FURNITURE)
    for zoom in (0.41, 0.9, 2.7):
        _move(page, (*view[:2], zoom))
        page.wait_for_timeout(400)  # tiles
        page.keyboard.down(" ")
        pixels = _screenshot(page).astype(int)
        page.keyboard.up(" ")
        green = pixels[..., 1] - pixels[..., 0] > 80
        slack = np.array([-2, -2, 2, 2]) / zoom  # OpenSeadragon stretches tiles by a CSS pixel, so that no seams show
        inner = _expected(boxes - slack, (*view[:2], zoom), green.shape, ratio)
        outer = _expected(boxes + slack, (*view[:2], zoom), green.shape, ratio)
        assert (green[inner]).all()
        assert not green[~outer].any()
        assert _iou(page, boxes, (*view[:2], zoom), ratio) >= 0.98


def _grid(size: int, stride: float, last: float) -> NDArray[np.int64]:
    starts = np.arange(0, last + 1e-9, stride)
    y, x = np.meshgrid(starts, starts, indexing="ij")
    return np.rint(np.stack([x.ravel(), y.ravel()], 1)).astype(np.int64)


def _moved_border() -> NDArray[np.int64]:
    starts = [*range(0, 750, 256), 1000 - 256]
    y, x = np.meshgrid(starts, starts, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1)


GRIDS = {
    "fractional": (_grid(1000, 101.37, 890), 101.37, 101.37),
    "moved border": (_moved_border(), 256.0, 256.0),
    "overlap": (_grid(1000, 64, 860), 128.0, 64.0),
}  # corners, footprint, side of what is drawn around the centre


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("name", GRIDS)
def test_grids(open_page, tmp_path: Path, name: str, ratio: int) -> None:
    coords, footprint, side = GRIDS[name]
    chosen = np.random.default_rng(3).random(len(coords)) < 0.3
    chosen[-1] = True
    slide = Slide([[Scale(coords, footprint, chosen[None].astype(float))]], size=(1000, 1000))
    page = write_export(tmp_path, [Case([slide])])
    corners = coords[chosen] + (footprint - side) / 2
    boxes = np.hstack([corners, corners + side])
    tab = open_page(page, _address((520.3, 489.9, 1.0)), device_scale_factor=ratio)
    for zoom in (0.45, 1.3):
        view = (520.3, 489.9, zoom)
        _move(tab, view)
        assert _iou(tab, boxes, view, ratio) >= 0.98


def test_large_slide(open_page, tmp_path: Path) -> None:
    """Far from the origin of a slide of 100,000 px, zoomed in until a patch is larger than the window."""
    coords = _grid(100_000, 512.6, 99_400)
    chosen = (coords[:, 0] // 512 + coords[:, 1] // 512) % 2 == 0
    slide = Slide([[Scale(coords, 512.6, chosen[None].astype(float))]], size=(100_000, 100_000))
    page = write_export(tmp_path, [Case([slide])])
    boxes = np.hstack([coords, coords + 512.6])[chosen]
    for zoom in (0.05, 3.0):
        view = (*(boxes[len(boxes) * 9 // 10, :2] + 90), zoom)
        near = boxes[(np.abs(boxes[:, :2] - view[:2]) < 20_000).all(axis=1)]
        assert _iou(open_page(page, _address(view)), near, view) >= 0.98


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> tuple[Path, NDArray[np.int64], NDArray[np.float64]]:
    """An export with a layer of random values and a diverging one, on a white slide of 1,024 px."""
    coords = _grid(1024, 64, 960)
    attention = np.random.default_rng(5).gamma(0.6, 1.5, len(coords))
    layers = [Layer(), Layer("contribution to tumour", "", "diverging")]
    stacked = np.stack([attention, (attention - 1) / 50])
    coarse = _grid(1024, 128, 896)
    more = Scale(coarse, 128.0, np.tile([[1.0], [0.0]], len(coarse)), 1.0)
    slide = Slide([[Scale(coords, 64.0, stacked), more]], layers=layers)
    unknown = Slide([[Scale(coords, 64.0, stacked), more]], layers=layers, mpp=None)
    return write_export(tmp_path_factory.mktemp("values"), [Case([slide]), Case([unknown])]), coords, stacked


def test_value_under_the_pointer(open_page, values) -> None:
    path, coords, (attention, _) = values
    page = open_page(path, "case=0&x=512&y=512&zoom=0.5&scale=0")
    box = page.locator(".stage").bounding_box()
    rank = np.argsort(np.argsort(-np.r_[attention, np.ones(64)], kind="stable"), kind="stable") + 1
    for patch in (0, 37, 200):
        x, y = coords[patch] + 32
        page.mouse.move(box["x"] + box["width"] / 2 + (x - 512) * 0.5, box["y"] + box["height"] / 2 + (y - 512) * 0.5)
        hit = page.evaluate("([x, y]) => Panes.list[0].overlay.at(x, y)", [int(x), int(y)])
        assert hit["patch"] == patch
        assert hit["value"] == pytest.approx(attention[patch], rel=2e-3)
        text = page.locator(".readout").text_content()
        assert f"rank {rank[patch]} of {len(rank)}" in text
        assert f"x {round(x / 2)}, y {round(y / 2)} µm" in text
        assert float(text.split()[0]) == pytest.approx(attention[patch], rel=5e-3, abs=6e-4)


def test_unknown_scale_is_told_in_pixels(open_page, values) -> None:
    page = open_page(values[0], "case=1&x=512&y=300&zoom=0.5")
    assert "x 512, y 300 px" in page.locator(".readout").text_content()
    assert page.locator(".scale-bar").text_content() == "200 px"


def test_scale_bar_has_the_length_that_it_says(open_page, values) -> None:
    page = open_page(values[0], "case=0")
    for zoom, text, length in ((0.5, "100 µm", 100), (3.1, "20 µm", 124)):
        _move(page, (512, 512, zoom))
        bar = page.locator(".scale-bar")
        assert bar.text_content() == text
        assert bar.bounding_box()["width"] == pytest.approx(length, abs=0.6)


def test_colours_are_those_of_matplotlib(open_page, values) -> None:
    page = open_page(values[0])
    for name in ("viridis", "magma", "cividis"):
        table = np.reshape(page.evaluate("(name) => [...Colours.table(name)]", name), (256, 3))
        assert table == pytest.approx(colormaps[name](np.arange(256), bytes=True)[:, :3], abs=1)


def test_top_ranks(open_page, values) -> None:
    """The threshold of the ranks shows as many patches as it says."""
    path, coords, (attention, _) = values
    page = open_page(path, _address((512.3, 512.3, 0.5), layer="rank", threshold=5))
    top = np.argsort(-attention)[:5]
    page.evaluate(FURNITURE)
    pixels = _screenshot(page).astype(int)
    boxes = np.hstack([coords, coords + 64])[top]
    expected = _expected(boxes, (512.3, 512.3, 0.5), pixels.shape[:2], 1)
    drawn = (np.abs(pixels - 255) > 3).any(axis=2)
    assert (drawn & expected).sum() / (drawn | expected).sum() >= 0.98
    assert page.locator("#threshold-value").text_content() == "top 5"


def test_diverging_colours_are_symmetric(open_page, values) -> None:
    path, _, (_, contribution) = values
    page = open_page(path, "case=0&x=512&y=512&zoom=0.5&layer=contribution+to+tumour&colours=magma")
    low, high = page.evaluate("() => { const { low, high } = Panes.list[0].overlay.range; return [low, high]; }")
    assert low == -high
    assert high == pytest.approx(np.percentile(np.abs(np.r_[contribution, np.zeros(64)]), 99), rel=0.05)
    assert page.locator("#colours").input_value() == "blue–white–orange"
    neutral = page.evaluate("() => [...Colours.table(Colours.diverging).subarray(3 * 127, 3 * 127 + 3)]")
    assert min(neutral) > 240


def test_space_hides_while_it_is_held(open_page, values) -> None:
    page = open_page(values[0], "case=0&x=512&y=512&zoom=0.5&opacity=1")
    page.evaluate(FURNITURE)
    page.locator(".openseadragon-canvas").focus()
    shown = _screenshot(page)
    page.keyboard.down(" ")
    assert (_screenshot(page)[100:-100, 300:-300] >= 250).all()  # the slide is white
    page.keyboard.up(" ")
    assert (_screenshot(page) == shown).all()


def test_curtain(open_page, values) -> None:
    """Left of the curtain is the bare slide; it is dragged, and moved by keyboard."""
    page = open_page(values[0], "case=0&x=512&y=512&zoom=0.9&opacity=1&curtain=0.25")
    box = page.locator(".stage").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, y, steps=4)
    page.mouse.up()
    assert page.evaluate("() => Settings.values.curtain") == pytest.approx(0.5, abs=0.01)
    page.evaluate(FURNITURE)
    coloured = (_screenshot(page).astype(int) < 250).any(axis=2).mean(axis=0)
    middle = len(coloured) // 2
    assert coloured[: middle - 3].max() == 0
    assert coloured[middle + 3 :].min() > 0.9
    page.locator("#curtain").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("() => Settings.values.curtain") == pytest.approx(0.49, abs=0.01)


def test_scales(open_page, values) -> None:
    page = open_page(values[0], "case=0&x=512&y=512&zoom=0.5&scale=1")
    page.locator("#highest button").first.click()  # of the fine scale, which is shown then
    _wait_for_frames(page)
    assert page.locator(".readout").text_content().split(" · ")[1] == "rank 1 of 320"
    assert page.locator("#scale").input_value() == "0"
    page.locator("#scale").select_option("1")
    assert page.evaluate("() => Panes.list[0].overlay.scale.footprint") == 128
    assert page.locator("#scale option").all_text_contents() == ["fine, 0.5 µm/px", "coarse, 1 µm/px"]


def test_100000_patches_are_drawn_within_a_second(open_page, tmp_path: Path) -> None:
    coords = _grid(100_000, 256, 256 * 315)
    assert len(coords) >= 99_000
    draws = np.random.default_rng(0).gamma(0.5, 2, (3, len(coords)))
    layers = [Layer(), Layer("head 1"), Layer("head 2")]
    slide = Slide([[Scale(coords, 256.0, draws)]], size=(81_000, 81_000), layers=layers)
    page = open_page(write_export(tmp_path, [Case([slide])]))
    took = page.evaluate(
        """async (layer) => {
            const start = performance.now();
            const select = document.getElementById("layer");
            select.value = layer;
            select.dispatchEvent(new Event("change"));
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            return performance.now() - start;
        }""",
        "head 2",
    )
    assert page.evaluate("() => Panes.list[0].overlay.layer.name") == "head 2"
    print(f"layer of {len(coords)} patches drawn in {took:.0f} ms")
    assert took <= 1000


def test_half_precision_numbers(open_page, values) -> None:
    page = open_page(values[0])
    bits = np.array([0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0xC000, 0x7BFF, 0x7C00, 0xFC00, 0x3555], "<u2")
    text = base64.b64encode(bits.tobytes()).decode()
    found = page.evaluate("(text) => [...Numbers.float16(text, 1)].map(String)", text)
    assert [float(value) for value in found] == pytest.approx(bits.view("<f2").astype(float).tolist())
