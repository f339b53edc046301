"""Attention or contributions over the slide's thumbnail, with a colour bar and a scale bar."""

import math
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.heatmaps.attention import SlideAttention
from e2e_abmilx.heatmaps.colours import COLOURS, Colouring, Kind
from e2e_abmilx.heatmaps.raster import Raster

_WIDTH_MM, _HEADS_IN_A_ROW = 180.0, 4
_LARGE_MM, _SMALL_MM = (75.0, 110.0), (36.5, 50.0)  # width and height of a panel at most
_BAR_MM, _GAP_MM, _TITLE_MM = 50.0, 2.0, 6.0  # of the colour bar, that its label has room
_SMALL_PIXELS = 512
_OPACITY = 0.65


def draw_overlay(attention: SlideAttention, *, kind: Kind = "attention", title: str = "") -> Figure:
    """Draw for each scale the slide beside the mean over the heads, and below them each head, small.

    Contributions are of all heads together, one panel.

    Args:
        attention: Of the slide.
        kind: What colours stand for.
        title: What to say above, such as the prediction; by default the slide's name.

    Returns:
        A figure. After ``%matplotlib inline`` it shows itself at the end of a notebook's cell; its
        ``savefig("overlay.png", dpi=200)`` writes it.

    Raises:
        HeatmapError: Contributions are asked for and not there.
    """
    thumbnail = attention.store.thumbnail()
    assert thumbnail is not None  # check_drawable saw to it
    colouring = Colouring.of(attention, kind)
    page = _Page(thumbnail, len(colouring.names) - 1, len(attention.present_scales))
    page.figure.suptitle(
        title or attention.store.name, fontsize=9, y=1 - 2 / page.height_mm, va="top", parse_math=False
    )
    for block, scale in enumerate(attention.present_scales):
        _draw_block(page, block, attention, colouring, thumbnail, scale)
    return page.figure


def blend(thumbnail: NDArray[np.uint8], values: NDArray[np.float32], norm: Normalize) -> NDArray[np.uint8]:
    """Lay colours over a grey thumbnail where there are patches.

    Args:
        thumbnail: RGB, shape ``(h, w, 3)``.
        values: NaN where there is no patch, shape ``(h, w)``.
        norm: From values to 0 … 1.

    Returns:
        RGB, shape ``(h, w, 3)``.
    """
    known = ~np.isnan(values)
    colours = matplotlib.colormaps[COLOURS](norm(values[known]), bytes=True)[:, :3]
    grey = np.asarray(Image.fromarray(thumbnail).convert("L"))  # or the stain would mix with the colours
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[known] = _OPACITY * colours + (1 - _OPACITY) * picture[known]
    return picture


class _Page:
    """Where panels lie on a figure: a block a scale, in it one row of large panels and rows of small ones."""

    def __init__(self, thumbnail: NDArray[np.uint8], small: int, blocks: int) -> None:
        aspect: float = thumbnail.shape[0] / thumbnail.shape[1]
        self.large_mm = min(max(_LARGE_MM[0] * aspect, _BAR_MM), _LARGE_MM[1])
        self.small_mm = min(_SMALL_MM[0] * aspect, _SMALL_MM[1])
        self.rows = math.ceil(small / _HEADS_IN_A_ROW)
        self.block_mm = self.large_mm + _TITLE_MM + self.rows * (self.small_mm + _TITLE_MM) + _GAP_MM
        self.height_mm = _TITLE_MM + blocks * self.block_mm
        self.figure = Figure(figsize=(_WIDTH_MM / 25.4, self.height_mm / 25.4))

    def large(self, block: int, column: int) -> Axes:
        left = _GAP_MM + column * (_LARGE_MM[0] + _GAP_MM)
        return self._panel(left, self._top(block), _LARGE_MM[0], self.large_mm)

    def small(self, block: int, number: int) -> Axes:
        row, column = divmod(number, _HEADS_IN_A_ROW)
        left = _GAP_MM + column * (_SMALL_MM[0] + _GAP_MM)
        top = self._top(block) + self.large_mm + _TITLE_MM + row * (self.small_mm + _TITLE_MM)
        return self._panel(left, top, _SMALL_MM[0], self.small_mm)

    def bar(self, block: int) -> Axes:
        return self._panel(2 * (_LARGE_MM[0] + _GAP_MM) + 3, self._top(block), 3, self.large_mm)

    def _top(self, block: int) -> float:
        return 2 * _TITLE_MM + block * self.block_mm

    def _panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at so many mm from the left and from the top."""
        page, bottom = self.height_mm, self.height_mm - top - height
        return self.figure.add_axes((left / _WIDTH_MM, bottom / page, width / _WIDTH_MM, height / page))


def _draw_block(
    page: _Page,
    block: int,
    attention: SlideAttention,
    colouring: Colouring,
    thumbnail: NDArray[np.uint8],
    scale: int,
) -> None:
    """One scale: the slide, the plane that sums up, those it is made of, and the colour bar."""
    here = attention.scale == scale
    coords = attention.coords[here]

    def painter(below: NDArray[np.uint8]) -> Callable[[int], NDArray[np.uint8]]:
        raster = Raster(coords, attention.footprint(scale), attention.slide_size, below.shape[:2])
        return lambda plane: blend(below, raster.paint(colouring.values[plane, here]), colouring.norm)

    slide, main = page.large(block, 0), page.large(block, 1)
    _show(slide, thumbnail, f"{len(coords):,} patches at {attention.store.scales[scale]:g} µm/px")
    _draw_scale_bar(slide, attention.slide_mpp * attention.slide_size[0] / thumbnail.shape[1])
    first, *others = colouring.names
    _show(main, painter(thumbnail)(0), first)
    small = Image.fromarray(thumbnail)
    small.thumbnail((_SMALL_PIXELS, _SMALL_PIXELS))
    paint = painter(np.asarray(small))
    for number, name in enumerate(others):
        _show(page.small(block, number), paint(1 + number), name)
    colours = ScalarMappable(colouring.norm, COLOURS)
    bar = page.figure.colorbar(colours, page.bar(block), extend=colouring.extend, ticks=colouring.ticks)
    bar.set_label(colouring.label, fontsize=7, parse_math=False)
    bar.ax.minorticks_off()
    bar.ax.set_yticklabels([f"{tick:g}" for tick in colouring.ticks], fontsize=7)


def _show(axes: Axes, picture: NDArray[np.uint8], title: str) -> None:
    axes.imshow(picture)
    axes.set_anchor("N")
    axes.set_title(title, fontsize=8, pad=3)
    axes.set_axis_off()


def _draw_scale_bar(axes: Axes, pixel_um: float) -> None:
    """A bar of 1, 2 or 5 × 10^k mm, at most a quarter of the width, on the lower left."""
    width = axes.get_xlim()[1] - axes.get_xlim()[0]
    longest_mm = 0.25 * width * pixel_um / 1000
    power = 10.0 ** math.floor(math.log10(longest_mm))
    length_mm = max(step * power for step in (1, 2, 5) if step * power <= longest_mm)
    outline = [withStroke(linewidth=4, foreground="white")]
    start, end = 0.03 * width, 0.03 * width + length_mm * 1000 / pixel_um
    y = 0.965 * axes.get_ylim()[0]
    axes.plot([start, end], [y, y], color="black", linewidth=2, solid_capstyle="butt", path_effects=outline)
    axes.annotate(
        f"{length_mm:g} mm", (start, y), (0, 3), textcoords="offset points",
        ha="left", va="bottom", fontsize=8, path_effects=outline,
    )  # fmt: skip
