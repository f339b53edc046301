import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.heatmaps import Contribution, SlideAttention, draw_contact_sheet, draw_overlay
from e2e_abmilx.heatmaps.colours import Kind
from e2e_abmilx.store import PatchStore
from e2e_abmilx.synthetic import MASK_DOWNSAMPLE, write_slide

Mask = NDArray[np.bool_]


class _Lesion(NamedTuple):
    """A store, the mask of the true lesion (one pixel per 8 × 8), and whether each fine patch touches the lesion."""

    store: PatchStore
    truth: Mask
    hot: Mask


def _lesion(folder: Path, slide_mpp: float, mpp: float) -> _Lesion:
    slide = folder / "slide.tiff"
    truth = write_slide(slide, seed=3, lesion_fraction=0.3, side=2048, mpp=slide_mpp).lesion
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
    """Return the red pixels of a panel of the saved picture, at the resolution of the file."""
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
    """Draw the patches that touch the lesion, one by one."""
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
def test_red_pixels_of_the_overlay_are_the_lesion(tmp_path: Path, slide_mpp: float, mpp: float) -> None:
    lesion = _lesion(tmp_path, slide_mpp, mpp)
    store, weights = lesion.store, lesion.hot / lesion.hot.sum()
    attention = SlideAttention.from_weights(store, store.coords(), np.zeros(len(weights)), weights[None])
    hot = _hot_in_print(tmp_path / "overlay.png", attention)
    truth, patches = _resize(lesion.truth, hot.shape), _patches_as_mask(lesion, hot.shape)
    possible = _iou(patches, truth)  # the best value of squares that touch the lesion
    print(
        f"slide at {slide_mpp}, patches at {mpp} µm/px: IoU {_iou(hot, truth):.3f} with the lesion (at most"
        f" {possible:.3f} with such patches), {_iou(hot, patches):.3f} with the patches that touch it"
    )
    assert _iou(hot, patches) > 0.97
    assert _iou(hot, truth) > possible - 0.01 > 0.5
    one_patch = round(store.attributes["footprints"][0] * hot.shape[1] / store.attributes["slide_size"][0])
    assert _iou(np.roll(hot, one_patch, axis=1), patches) < 0.95


def test_patches_with_positive_contributions_are_red_and_cover_the_lesion(tmp_path: Path) -> None:
    lesion = _lesion(tmp_path, 0.5, 1.0)
    count = len(lesion.hot)
    # contributions to the mean of numbers that are 1 in the lesion and 0 elsewhere
    to_mean = (lesion.hot - lesion.hot.mean()) / (count - 1)
    attention = SlideAttention.from_weights(
        lesion.store, lesion.store.coords(), np.zeros(count), np.full((1, count), 1 / count),
        contribution=Contribution("log-odds of tumour", to_mean),
    )  # fmt: skip
    hot = _hot_in_print(tmp_path / "overlay.png", attention, "contribution")
    assert _iou(hot, _patches_as_mask(lesion, hot.shape)) > 0.97


def test_overlay_has_one_labelled_panel_per_head(attention: SlideAttention) -> None:
    figure = draw_overlay(attention, title="slide-003: risk 0.7")
    assert figure.get_suptitle() == "slide-003: risk 0.7"
    titles = [axes.get_title() for axes in figure.axes]
    for panel in ("mean of 3 heads", "head 1", "head 2", "head 3"):
        assert titles.count(panel) == 2  # once per scale
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["attention (weights sum to 1 over the bag)\nrelative to uniform weights"] * 2
    counts = [f"{(attention.scale == scale).sum()} patches at {mpp} µm/px" for scale, mpp in enumerate(("0.5", "1"))]
    assert set(counts) <= set(titles)


def test_overlay_of_contributions_has_one_panel_for_all_heads(contributing: SlideAttention) -> None:
    figure = draw_overlay(contributing, kind="contribution")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count("contribution") == 2  # once per scale
    assert not any("head" in title for title in titles)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.yaxis.label.get_window_extent().x1 < figure.bbox.x1
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["contribution to the log-odds of tumour:\nwith the patch minus without it"] * 2


def test_length_of_the_scale_bar_matches_its_label(attention: SlideAttention) -> None:
    (slide, *_) = draw_overlay(attention).axes
    (bar,) = slide.lines
    (text,) = slide.texts
    pixel_um = attention.slide_mpp * attention.slide_size[0] / slide.get_images()[0].get_size()[1]
    length_mm = np.ptp(bar.get_xdata()) * pixel_um / 1000
    assert text.get_text() == f"{length_mm:.3g} mm"


@pytest.mark.parametrize("name", ["$5_and_$7", r"a $\oops$ b", "100 % of $x^{$"])
@pytest.mark.parametrize("kind", ["attention", "contribution"])
def test_names_with_dollar_signs_are_drawn_literally(
    attention: SlideAttention, tmp_path: Path, name: str, kind: Kind
) -> None:
    """Names of slides, titles and classes: matplotlib takes text between two dollar signs for mathematics."""
    shutil.copytree(attention.store.path, tmp_path / f"{name}.zarr")
    contribution = Contribution(f"log-odds of {name}", np.linspace(-1, 1, len(attention.coords)))
    named = replace(attention, store=PatchStore(tmp_path / f"{name}.zarr"), contribution=contribution)
    for title in ("", f"{name}: {name} = 0.9"):
        for figure in (draw_overlay(named, kind=kind, title=title), draw_contact_sheet(named, kind=kind, title=title)):
            figure.savefig(tmp_path / "figure.png", dpi=30)
            texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and name in text.get_text()]
            assert len(texts) >= (1 if kind == "attention" else 2)
            assert not any(text.get_parse_math() for text in texts)
