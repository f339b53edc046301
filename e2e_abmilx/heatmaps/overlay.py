"""An overlay: attention or contributions over the slide's thumbnail, with a colour bar and a scale bar."""

import math

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
from e2e_abmilx.heatmaps.colours import COLOUR_MAP, Colouring, Kind
from e2e_abmilx.heatmaps.raster import Raster

_WIDTH_MM, _HEADS_PER_ROW = 180.0, 4
_LARGE_MM, _SMALL_MM = (75.0, 110.0), (36.5, 50.0)  # largest width and height of a panel
_LEAST_BAR_MM, _GAP_MM, _TITLE_MM = 50.0, 2.0, 6.0  # a shorter colour bar has no room for its label
_SMALL_PIXELS = 512
_OPACITY = 0.65


def draw_overlay(attention: SlideAttention, *, kind: Kind = "attention", title: str = "") -> Figure:
    """Draw for each scale the slide, the mean over the heads next to it, and the single heads below.

    Contributions need one panel, because they are sums over all heads.

    Args:
        attention: Attention of the slide.
        kind: Meaning of the colours.
        title: Title, such as the prediction; by default the slide's name.

    Returns:
        A figure. A notebook with ``%matplotlib inline`` shows it at the end of a cell; its
        ``savefig("overlay.png", dpi=200)`` writes it.

    Raises:
        HeatmapError: The kind is ``"contribution"`` and the contributions are unknown.
    """
    page = _Page(attention, kind)
    y = 1 - 2 / page.height_mm
    page.figure.suptitle(title or attention.store.name, fontsize=9, y=y, va="top", parse_math=False)
    for block, scale in enumerate(attention.present_scales):
        page.draw_block(block, scale)
    return page.figure


class _Page:
    """A figure with one block per scale: a row of two large panels and the colour bar, then rows of small panels."""

    def __init__(self, attention: SlideAttention, kind: Kind) -> None:
        thumbnail = attention.store.thumbnail()
        assert thumbnail is not None  # check_drawable has refused stores without one
        self.attention, self.thumbnail = attention, thumbnail
        self.colouring = Colouring.from_attention(attention, kind)
        aspect: float = thumbnail.shape[0] / thumbnail.shape[1]
        self.large_mm = min(max(_LARGE_MM[0] * aspect, _LEAST_BAR_MM), _LARGE_MM[1])
        self.small_mm = min(_SMALL_MM[0] * aspect, _SMALL_MM[1])
        rows = math.ceil((len(self.colouring.names) - 1) / _HEADS_PER_ROW)
        self.block_mm = self.large_mm + _TITLE_MM + rows * (self.small_mm + _TITLE_MM) + _GAP_MM
        self.height_mm = _TITLE_MM + len(attention.present_scales) * self.block_mm
        self.figure = Figure(figsize=(_WIDTH_MM / 25.4, self.height_mm / 25.4))

    def draw_block(self, block: int, scale: int) -> None:
        """Draw one scale: the slide, the summary plane, the planes of the heads, and the colour bar."""
        top = 2 * _TITLE_MM + block * self.block_mm
        step = _LARGE_MM[0] + _GAP_MM
        slide = self._panel(_GAP_MM, top, _LARGE_MM[0], self.large_mm)
        main = self._panel(_GAP_MM + step, top, _LARGE_MM[0], self.large_mm)
        bar = self._panel(2 * step + 3, top, 3, self.large_mm)
        count = (self.attention.scale == scale).sum()
        _show(slide, self.thumbnail, f"{count:,} patches at {self.attention.store.scales[scale]:g} µm/px")
        pixel_um = self.attention.slide_mpp * self.attention.slide_size[0] / self.thumbnail.shape[1]
        _draw_scale_bar(slide, pixel_um)
        (summary,) = self._paint(scale, self.thumbnail, slice(1))
        _show(main, summary, self.colouring.names[0])
        small = Image.fromarray(self.thumbnail)
        small.thumbnail((_SMALL_PIXELS, _SMALL_PIXELS))
        heads = self._paint(scale, np.asarray(small), slice(1, None))
        for number, (picture, name) in enumerate(zip(heads, self.colouring.names[1:], strict=True)):
            _show(self._small_panel(top + self.large_mm + _TITLE_MM, number), picture, name)
        self._draw_colour_bar(bar)

    def _paint(self, scale: int, thumbnail: NDArray[np.uint8], planes: slice) -> list[NDArray[np.uint8]]:
        """Blend planes of one scale into a thumbnail."""
        here = self.attention.scale == scale
        footprint, shape = self.attention.footprint(scale), thumbnail.shape[:2]
        raster = Raster(self.attention.coords[here], footprint, self.attention.slide_size, shape)
        values = self.colouring.values[planes, here]
        return [_blend(thumbnail, raster.paint(plane), self.colouring.norm) for plane in values]

    def _draw_colour_bar(self, axes: Axes) -> None:
        colouring = self.colouring
        colours = ScalarMappable(colouring.norm, COLOUR_MAP)
        bar = self.figure.colorbar(colours, axes, extend=colouring.extend, ticks=colouring.ticks)
        bar.set_label(colouring.label, fontsize=7, parse_math=False)
        bar.ax.minorticks_off()
        bar.ax.set_yticklabels([f"{tick:g}" for tick in colouring.ticks], fontsize=7)

    def _small_panel(self, top: float, number: int) -> Axes:
        row, column = divmod(number, _HEADS_PER_ROW)
        left, down = _GAP_MM + column * (_SMALL_MM[0] + _GAP_MM), row * (self.small_mm + _TITLE_MM)
        return self._panel(left, top + down, _SMALL_MM[0], self.small_mm)

    def _panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes; all lengths are in mm, from the left and from the top."""
        page, bottom = self.height_mm, self.height_mm - top - height
        return self.figure.add_axes((left / _WIDTH_MM, bottom / page, width / _WIDTH_MM, height / page))


def _blend(thumbnail: NDArray[np.uint8], values: NDArray[np.float32], norm: Normalize) -> NDArray[np.uint8]:
    """Blend the colours of values, which are NaN outside of the patches, into a grey thumbnail."""
    known = ~np.isnan(values)
    colours = matplotlib.colormaps[COLOUR_MAP](norm(values[known]), bytes=True)[:, :3]
    grey = np.asarray(Image.fromarray(thumbnail).convert("L"))  # the stain would change the colours
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[known] = _OPACITY * colours + (1 - _OPACITY) * picture[known]
    return picture


def _show(axes: Axes, picture: NDArray[np.uint8], title: str) -> None:
    axes.imshow(picture)
    axes.set_anchor("N")
    axes.set_title(title, fontsize=8, pad=3)
    axes.set_axis_off()


def _draw_scale_bar(axes: Axes, pixel_um: float) -> None:
    """Draw a bar of 1, 2 or 5 × 10^k mm at the lower left, at most a quarter of the width."""
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
