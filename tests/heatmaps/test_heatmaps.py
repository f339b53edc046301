import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import LogNorm
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.heatmaps import (
    Contribution,
    HeatmapError,
    Raster,
    SlideAttention,
    check_drawable,
    draw_contact_sheet,
    draw_overlay,
    write_geojson,
    write_heatmap,
    write_pyramid,
)
from e2e_abmilx.heatmaps.colours import Colouring, Kind
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.synthetic import MASK_DOWNSAMPLE, write_slide

Mask = NDArray[np.bool_]


class _Lesion(NamedTuple):
    """A store, the true lesion (one pixel for 8 × 8), and which patches of the finest scale touch it."""

    store: PatchStore
    truth: Mask
    hot: Mask


def _lesion(folder: Path, slide_mpp: float, mpp: float) -> _Lesion:
    slide = folder / "slide.tiff"
    truth = write_slide(slide, seed=3, lesion_share=0.3, side=2048, mpp=slide_mpp).lesion
    cache_slides(slide, folder / "stores", mpp=(mpp,), patch_size=32, workers=1)
    store = PatchStore(folder / "stores" / "slide.zarr")
    side = store.attributes["footprints"][0]
    boxes = [
        (x // MASK_DOWNSAMPLE, y // MASK_DOWNSAMPLE, *np.ceil((corner + side) / MASK_DOWNSAMPLE).astype(int))
        for corner in store.coords()
        for x, y in [corner]
    ]
    hot = np.array([truth[top:bottom, left:right].any() for left, top, right, bottom in boxes])
    return _Lesion(store, truth, hot)


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def _hot_in_print(figure_file: Path, attention: SlideAttention, kind: Kind = "attention") -> Mask:
    """Where the panel of a kind is red in the picture that is saved: one pixel for one of the file."""
    figure = draw_overlay(attention, kind=kind)
    figure.savefig(figure_file, dpi=3 * figure.dpi)
    (axes,) = [axes for axes in figure.axes if axes.get_title() == kind]
    height, width = axes.get_images()[0].get_size()
    corners = 3 * axes.transData.transform([(-0.5, -0.5), (width - 0.5, height - 0.5)])
    with Image.open(figure_file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    (left, top), (right, bottom) = np.rint(corners).astype(int)
    panel = pixels[len(pixels) - top : len(pixels) - bottom, left:right]
    hot: Mask = panel[..., 0] > panel[..., 2] + 15
    return hot


def _resize(mask: Mask, shape: tuple[int, ...]) -> Mask:
    return np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))


def _patches_as_mask(lesion: _Lesion, shape: tuple[int, ...]) -> Mask:
    """The patches that touch the lesion, drawn one by one."""
    mask = np.zeros(shape, np.bool_)
    shrink = np.array(shape[::-1]) / lesion.store.attributes["slide_size"]
    side = lesion.store.attributes["footprints"][0]
    for corner in lesion.store.coords()[lesion.hot]:
        (left, top), (right, bottom) = (
            np.rint(corner * shrink).astype(int),
            np.rint((corner + side) * shrink).astype(int),
        )
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(("slide_mpp", "mpp"), [(0.5, 0.5), (0.5, 0.7), (0.5, 1.0), (0.25, 0.5), (0.25, 1.0)])
def test_hot_pixels_of_the_overlay_are_the_lesion(tmp_path: Path, slide_mpp: float, mpp: float) -> None:
    lesion = _lesion(tmp_path, slide_mpp, mpp)
    store, weights = lesion.store, lesion.hot / lesion.hot.sum()
    attention = SlideAttention.of_weights(store, store.coords(), np.zeros(len(weights)), weights[None])
    hot = _hot_in_print(tmp_path / "overlay.png", attention)
    truth, patches = _resize(lesion.truth, hot.shape), _patches_as_mask(lesion, hot.shape)
    possible = _iou(patches, truth)  # of squares that touch the lesion
    print(
        f"slide of {slide_mpp} cut at {mpp} µm/px: IoU {_iou(hot, truth):.3f} with the lesion, at most"
        f" {possible:.3f} with such patches; {_iou(hot, patches):.3f} with the patches that touch it"
    )
    assert _iou(hot, patches) > 0.97
    assert _iou(hot, truth) > possible - 0.01 > 0.5
    one_patch = round(store.attributes["footprints"][0] * hot.shape[1] / store.attributes["slide_size"][0])
    assert _iou(np.roll(hot, one_patch, axis=1), patches) < 0.95


def test_patches_that_speak_for_a_class_are_red_and_lie_on_the_lesion(tmp_path: Path) -> None:
    lesion = _lesion(tmp_path, 0.5, 1.0)
    count = len(lesion.hot)
    of_mean = (lesion.hot - lesion.hot.mean()) / (
        count - 1
    )  # to a mean of ones in the lesion, zeros elsewhere
    attention = SlideAttention.of_weights(
        lesion.store, lesion.store.coords(), np.zeros(count), np.full((1, count), 1 / count),
        contribution=Contribution("log-odds of tumour", of_mean),
    )  # fmt: skip
    hot = _hot_in_print(tmp_path / "overlay.png", attention, "contribution")
    assert _iou(hot, _patches_as_mask(lesion, hot.shape)) > 0.97


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 60)), min_size=1, max_size=12),
    st.floats(1, 40),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_raster_is_the_mean_of_the_patches_on_each_pixel(
    corners: list[tuple[int, int]], footprint: float, shape: tuple[int, int]
) -> None:
    size, coords = (131, 101), np.array(corners)
    values = np.random.default_rng(0).random(len(coords))
    total, count = np.zeros(shape), np.zeros(shape)
    for (x, y), value in zip(coords, values, strict=True):
        left, right = (min(round(edge * (shape[1] / size[0])), shape[1]) for edge in (x, x + footprint))
        top, bottom = (min(round(edge * (shape[0] / size[1])), shape[0]) for edge in (y, y + footprint))
        left, top = min(left, shape[1] - 1), min(top, shape[0] - 1)  # a patch has one pixel at least
        cover = np.s_[top : max(bottom, top + 1), left : max(right, left + 1)]
        total[cover] += value
        count[cover] += 1
    drawn = Raster(coords, footprint, size, shape).paint(values)
    assert np.array_equal(np.isnan(drawn), count == 0)
    np.testing.assert_allclose(drawn[count > 0], (total / np.maximum(count, 1))[count > 0], rtol=1e-6)


@pytest.fixture(scope="module")
def attention(stores: Path) -> SlideAttention:
    """Three heads over both scales of a slide of 512 × 512 pixels."""
    return _attention(stores, "slide-003")


@pytest.fixture(scope="module")
def contributing(attention: SlideAttention) -> SlideAttention:
    """The same, with contributions of both signs."""
    values = np.random.default_rng(1).normal(size=len(attention.coords)) ** 3 / 1000
    return replace(attention, contribution=Contribution("log-odds of tumour", values))


def _values(attention: SlideAttention) -> NDArray[np.floating]:
    return attention.known_contribution().values


def _attention(stores: Path, slide: str, *, heads: int = 3) -> SlideAttention:
    store = PatchStore(stores / f"{slide}.zarr")
    scales = range(len(store.scales))
    coords = np.concatenate([store.coords(scale) for scale in scales])
    scale = np.concatenate([np.full(store.num_patches(scale), scale) for scale in scales])
    weights = np.random.default_rng(0).exponential(size=(heads, len(coords)))
    return SlideAttention.of_weights(store, coords, scale, weights / weights.sum(axis=1, keepdims=True))


def test_attention_is_relative_to_uniform_over_the_whole_bag(attention: SlideAttention) -> None:
    np.testing.assert_allclose(attention.heads.mean(axis=1), 1, rtol=1e-5)
    assert attention.mean()[attention.rank() == 1] == attention.mean().max()
    assert sorted(attention.rank()) == list(range(1, len(attention.coords) + 1))
    store, count = attention.store, len(attention.coords)
    alike = np.full((1, count), 1 / (count + 30))  # with 30 patches of another slide
    shared = SlideAttention.of_weights(store, attention.coords, attention.scale, alike, bag_size=count + 30)
    np.testing.assert_allclose(shared.heads, 1, rtol=1e-6)


def test_attention_of_other_patches_is_refused(attention: SlideAttention) -> None:
    store, scale, weights = attention.store, attention.scale, attention.heads / len(attention.coords)
    for coords in (attention.coords + 1, attention.coords[::-1]):
        with pytest.raises(HeatmapError, match="of other patches than those at"):
            SlideAttention.of_weights(store, coords, scale, weights)


def test_a_store_that_knows_no_places_is_refused(stores: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "own.zarr", {0.5: (np.zeros((2, 8, 8, 3), np.uint8), None)})
    with pytest.raises(
        HeatmapError,
        match=r"slide_size, slide_mpp, footprints, thumbnail, coords.*make it from the slide itself",
    ):
        check_drawable(store)
    check_drawable(PatchStore(stores / "slide-003.zarr"))


def test_overlay_has_a_panel_a_head_and_says_what_it_shows(attention: SlideAttention) -> None:
    figure = draw_overlay(attention, title="slide-003: risk 0.7")
    assert figure.get_suptitle() == "slide-003: risk 0.7"
    titles = [axes.get_title() for axes in figure.axes]
    for panel in ("mean of 3 heads", "head 1", "head 2", "head 3"):
        assert titles.count(panel) == 2  # scales
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["attention (weights sum to 1 over the bag)\nrelative to uniform weights"] * 2
    counts = [
        f"{(attention.scale == scale).sum()} patches at {mpp} µm/px" for scale, mpp in enumerate(("0.5", "1"))
    ]
    assert set(counts) <= set(titles)


def test_scale_bar_is_as_long_as_it_says(attention: SlideAttention) -> None:
    (slide, *_) = draw_overlay(attention).axes
    (bar,) = slide.lines
    (text,) = slide.texts
    pixel_um = attention.slide_mpp * attention.slide_size[0] / slide.get_images()[0].get_size()[1]
    length_mm = np.ptp(bar.get_xdata()) * pixel_um / 1000
    assert text.get_text() == f"{length_mm:.3g} mm"


def test_uniform_attention_is_the_middle_of_the_colours(attention: SlideAttention) -> None:
    colouring = Colouring.of(attention, "attention")
    assert isinstance(colouring.norm, LogNorm)
    assert colouring.norm(1.0) == pytest.approx(0.5)
    assert colouring.values.shape == (4, len(attention.coords))


def test_no_contribution_is_the_middle_of_the_colours(contributing: SlideAttention) -> None:
    colouring = Colouring.of(contributing, "contribution")
    values = _values(contributing)
    assert colouring.names == ["contribution"]
    assert np.array_equal(colouring.values, values[None])
    assert colouring.norm(0.0) == pytest.approx(0.5)
    reach = colouring.ticks[-1]
    assert np.abs(values).max() <= reach < 2.6 * np.abs(values).max()
    assert colouring.norm(reach) == pytest.approx(1)
    np.testing.assert_allclose(colouring.norm(-values), 1 - colouring.norm(values), atol=1e-12)
    assert colouring.label == "contribution to the log-odds of tumour:\nwith the patch minus without it"


@given(st.floats(1e-6, 1e3), st.sampled_from([-1, 1]))
def test_colours_reach_the_next_round_contribution(largest: float, sign: int) -> None:
    attention = SlideAttention(
        None, np.zeros((2, 2), np.int64), np.zeros(2, np.int64), np.ones((1, 2), np.float32),  # type: ignore[arg-type]
        Contribution("risk", np.array([0.0, sign * largest])),
    )  # fmt: skip
    low, *_, reach = Colouring.of(attention, "contribution").ticks
    assert low == -reach
    assert largest <= reach <= 2.5001 * largest
    assert f"{reach:.0e}"[0] in "125"


def test_patches_without_any_contribution_are_drawn_pale(attention: SlideAttention) -> None:
    none = replace(attention, contribution=Contribution("risk", np.zeros(len(attention.coords))))
    colouring = Colouring.of(none, "contribution")
    assert (colouring.norm(colouring.values) == 0.5).all()


def test_contributions_that_nobody_computed_are_asked_for(attention: SlideAttention, tmp_path: Path) -> None:
    for draw in (draw_overlay, draw_contact_sheet):
        with pytest.raises(
            HeatmapError, match=r"pass contribution=Contribution\(score, values\) with values from"
        ):
            draw(attention, kind="contribution")
    with pytest.raises(HeatmapError, match="leave_one_out"):
        write_pyramid(attention, tmp_path / "contribution.ome.zarr", kind="contribution")


def test_overlay_of_contributions_has_one_panel_for_all_heads(contributing: SlideAttention) -> None:
    figure = draw_overlay(contributing, kind="contribution")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count("contribution") == 2  # scales
    assert not any("head" in title for title in titles)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.yaxis.label.get_window_extent().x1 < figure.bbox.x1
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["contribution to the log-odds of tumour:\nwith the patch minus without it"] * 2


def test_ranks_spread_evenly_whatever_the_attention(attention: SlideAttention) -> None:
    colouring = Colouring.of(attention, "rank")
    count = len(attention.coords)
    expected = 100 * np.arange(1, count + 1) / count
    for plane in colouring.values:
        np.testing.assert_allclose(np.sort(plane), expected, rtol=1e-5)
    assert colouring.values[0].argmax() == attention.rank().argmin()


def test_geojson_is_squares_inside_the_slide(attention: SlideAttention, tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    write_geojson(attention, tmp_path / "patches.geojson")
    collection = json.loads((tmp_path / "patches.geojson").read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    slide = shapely.box(0, 0, *attention.slide_size)
    assert len(collection["features"]) == len(attention.coords)
    for number, feature in enumerate(collection["features"]):
        square = shapely.geometry.shape(feature["geometry"])
        scale = int(attention.scale[number])
        assert square.is_valid
        assert slide.covers(square)
        assert square.bounds[:2] == tuple(attention.coords[number])
        assert square.area == pytest.approx(attention.footprint(scale) ** 2, rel=1e-3)
        assert json.loads(shapely.to_geojson(square)) == feature["geometry"]
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert properties["classification"] == {"name": f"patch at {attention.store.scales[scale]:g} µm/px"}
        assert list(properties["measurements"].values()) == pytest.approx(
            [attention.mean()[number], *attention.heads[:, number], attention.rank()[number]], rel=1e-6
        )


def test_geojson_holds_contributions_beside_attention(contributing: SlideAttention, tmp_path: Path) -> None:
    write_geojson(contributing, tmp_path / "patches.geojson")
    features = json.loads((tmp_path / "patches.geojson").read_text(encoding="utf-8"))["features"]
    measured = [feature["properties"]["measurements"] for feature in features]
    name = "contribution to the log-odds of tumour (with the patch minus without it)"
    np.testing.assert_allclose([one.pop(name) for one in measured], _values(contributing), rtol=1e-7)
    assert [one["attention, rank (1 = highest)"] for one in measured] == contributing.rank().tolist()
    assert len(measured[0]) == 5


def test_pyramid_of_contributions_has_their_sign(contributing: SlideAttention, tmp_path: Path) -> None:
    write_pyramid(contributing, tmp_path / "contribution.ome.zarr", kind="contribution")
    root = zarr.open_group(tmp_path / "contribution.ome.zarr", mode="r")
    channels = root.attrs["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["contribution, 0.5 µm/px", "contribution, 1 µm/px"]
    window = channels[0]["window"]
    assert window["start"] == -window["end"] <= window["min"] == _values(contributing).min()
    assert "contribution to the log-odds of tumour" in root.attrs["multiscales"][0]["name"]
    fine = root["0"][0]
    here = contributing.scale == 0
    shrink = np.array(fine.shape[::-1]) / contributing.slide_size
    columns, rows = ((contributing.coords[here] + contributing.footprint(0) / 2) * shrink).astype(int).T
    np.testing.assert_allclose(fine[rows, columns], _values(contributing)[here], rtol=1e-5)


def test_every_level_of_the_pyramid_lies_over_the_slide(attention: SlideAttention, tmp_path: Path) -> None:
    write_pyramid(attention, tmp_path / "attention.ome.zarr")
    root = zarr.open_group(tmp_path / "attention.ome.zarr", mode="r")
    (image,) = root.attrs["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    labels = [channel["label"] for channel in root.attrs["omero"]["channels"]]
    assert labels == [
        f"{plane}, {mpp} µm/px"
        for mpp in ("0.5", "1")
        for plane in ("mean of 3 heads", "head 1", "head 2", "head 3")
    ]
    width, height = attention.slide_size
    mpp = attention.slide_mpp
    for level in image["datasets"]:
        array = root[level["path"]]
        scale, translation = (np.array(step[step["type"]][1:]) for step in level["coordinateTransformations"])
        # pixel centres are integers, also of the slide, whose first pixel is at 0 µm
        np.testing.assert_allclose(translation - scale / 2, -mpp / 2)
        np.testing.assert_allclose(array.shape[1:] * scale, np.array([height, width]) * mpp)
        for channel, number in enumerate([0, 1]):
            here = attention.scale == number
            centres = (attention.coords[here][:, ::-1] + attention.footprint(number) / 2 - 0.5) * mpp
            rows, columns = np.rint((centres - translation) / scale).astype(int).T
            found = array[4 * channel][rows, columns]
            np.testing.assert_allclose(found, attention.mean()[here], rtol=1e-5)


def test_the_pyramid_opens_with_ome_zarr(attention: SlideAttention, tmp_path: Path) -> None:
    io, reader = pytest.importorskip("ome_zarr.io"), pytest.importorskip("ome_zarr.reader")
    write_pyramid(attention, tmp_path / "attention.ome.zarr")
    (node,) = reader.Reader(io.parse_url(tmp_path / "attention.ome.zarr", mode="r"))()
    assert node.metadata["channel_names"][0] == "mean of 3 heads, 0.5 µm/px"
    assert [axis["unit"] for axis in node.metadata["axes"][1:]] == ["micrometer"] * 2
    thumbnail = attention.store.thumbnail()
    assert thumbnail is not None
    assert node.data[0].shape == (8, *thumbnail.shape[:2])
    assert float(node.data[0][0].max()) == pytest.approx(
        attention.mean()[attention.scale == 0].max(), rel=1e-5
    )


def test_contact_sheet_shows_both_ends_with_their_coordinates(attention: SlideAttention) -> None:
    figure = draw_contact_sheet(attention)
    shown = [axes for axes in figure.axes if axes.get_images()]
    captions = [axes.texts[0].get_text() for axes in shown]
    assert len(captions) == len(set(captions))
    fine = np.flatnonzero(attention.scale == 0)
    highest = fine[attention.mean()[fine].argmax()]
    x, y = attention.coords[highest]
    assert captions[0].startswith(f"({x}, {y})\n")
    assert captions[0].endswith(f"rank {attention.rank()[highest]}")
    pixels = shown[0].get_images()[0].get_array()
    assert np.array_equal(pixels, attention.store.read([highest])[0])
    headings = [title for axes in figure.axes if (title := axes.get_title(loc="left"))]
    assert [heading.split()[0] for heading in headings] == ["highest", "lowest"] * 2


def test_contact_sheet_of_contributions_goes_from_for_to_against(contributing: SlideAttention) -> None:
    figure = draw_contact_sheet(contributing, kind="contribution")
    headings = [title for axes in figure.axes if (title := axes.get_title(loc="left"))]
    assert headings[:2] == [
        f"{end} contribution to the log-odds of tumour at 0.5 µm/px" for end in ("highest", "lowest")
    ]
    shown = [axes.texts[0].get_text() for axes in figure.axes if axes.texts]
    values = _values(contributing)
    for caption, extreme in ((shown[0], np.argmax), (shown[12], np.argmin)):
        patch = int(extreme(np.where(contributing.scale == 0, values, 0)))
        x, y = contributing.coords[patch]
        assert caption.startswith(
            f"({x}, {y})\n{values[patch]:+.3g}, rank {(values > values[patch]).sum() + 1}"
        )


def test_a_coarse_patch_of_the_sheet_is_read_from_its_own_scale(attention: SlideAttention) -> None:
    coarse = np.flatnonzero(attention.scale == 1)
    highest = coarse[attention.mean()[coarse].argmax()]
    (axes,) = [
        axes
        for axes in draw_contact_sheet(attention).axes
        if axes.texts and axes.texts[0].get_text().endswith(f"rank {attention.rank()[highest]}")
    ]
    pixels = axes.get_images()[0].get_array()
    assert np.array_equal(pixels, attention.store.read([highest - coarse[0]], scale=1)[0])


@pytest.mark.parametrize("name", ["$5_and_$7", r"a $\oops$ b", "100 % of $x^{$"])
@pytest.mark.parametrize("kind", ["attention", "contribution"])
def test_names_are_drawn_as_they_are(
    attention: SlideAttention, tmp_path: Path, name: str, kind: Kind
) -> None:
    """Of slides, titles and classes; between two dollar signs matplotlib reads mathematics, or fails to."""
    shutil.copytree(attention.store.path, tmp_path / f"{name}.zarr")
    contribution = Contribution(f"log-odds of {name}", np.linspace(-1, 1, len(attention.coords)))
    named = replace(attention, store=PatchStore(tmp_path / f"{name}.zarr"), contribution=contribution)
    for title in ("", f"{name}: {name} = 0.9"):
        for figure in (
            draw_overlay(named, kind=kind, title=title),
            draw_contact_sheet(named, kind=kind, title=title),
        ):
            figure.savefig(tmp_path / "figure.png", dpi=30)
            texts = [
                text for text in figure.findobj(Text) if isinstance(text, Text) and name in text.get_text()
            ]
            assert len(texts) >= (1 if kind == "attention" else 2)
            assert not any(text.get_parse_math() for text in texts)


def test_the_folder_takes_the_place_of_an_earlier_one(attention: SlideAttention, tmp_path: Path) -> None:
    folder = tmp_path / "heatmaps" / "slide-003"
    weights = attention.heads / len(attention.coords)
    for _ in range(2):
        write_heatmap(attention.store, attention.coords, attention.scale, weights, folder, kind="rank")
        names = {path.name for path in folder.iterdir()}
        assert names == {"overlay.png", "patches.geojson", "rank.ome.zarr", "contact_sheet.png"}
        (folder / "patches.geojson").write_text("old")
    assert [path.name for path in folder.parent.iterdir()] == ["slide-003"]


def test_a_slide_of_one_patch(cohort: Path, tmp_path: Path) -> None:
    cache_slides(
        cohort / "slides" / "slide-000.tiff", tmp_path, mpp=(1.0,), patch_size=256, min_tissue=0.3, workers=1
    )
    store = PatchStore(tmp_path / "slide-000.zarr")
    assert store.num_patches() == 1
    write_heatmap(store, store.coords(), [0], [[1.0]], tmp_path / "heatmap")
    assert (tmp_path / "heatmap" / "contact_sheet.png").stat().st_size > 1000
