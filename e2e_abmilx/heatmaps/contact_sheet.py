"""The patches that a head looks at most and least, or that speak most for a score and against it, side by side."""

from typing import NamedTuple, Self

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.attention import SlideAttention, rank_of
from e2e_abmilx.heatmaps.colours import Kind

_COLUMNS, _ROWS = 6, 2  # patches of each end of the ranking
_CELL_MM, _GAP_MM, _BELOW_MM, _TITLE_MM = 29.0, 1.5, 13.0, 12.0


class _Order(NamedTuple):
    """What patches are sorted by: its name, the number of each patch, ``(N,)``, and how that is written."""

    name: str
    values: NDArray[np.floating]
    form: str

    @classmethod
    def of(cls, attention: SlideAttention, kind: Kind) -> Self:
        if kind == "contribution":
            contribution = attention.known_contribution()
            return cls(f"contribution to the {contribution.score}", contribution.values, "{:+.3g}")
        return cls("attention (times uniform)", attention.mean(), "{:.3g}×")


def draw_contact_sheet(attention: SlideAttention, *, kind: Kind = "attention", title: str = "") -> Figure:
    """Draw the patches at both ends of each scale's ranking, with their coordinates.

    Args:
        attention: Of the slide.
        kind: What patches are ranked by: mean attention, which its rank orders alike, or contribution.
        title: What to say above; by default the slide's name.

    Returns:
        A figure. After ``%matplotlib inline`` it shows itself at the end of a notebook's cell; its
        ``savefig("contact_sheet.png", dpi=200)`` writes it.

    Raises:
        HeatmapError: Contributions are asked for and not there.
    """
    order = _Order.of(attention, kind)
    rows = _rows(attention, order)
    width, height = _COLUMNS * (_CELL_MM + _GAP_MM), _TITLE_MM + len(rows) * (_CELL_MM + _BELOW_MM)
    figure = Figure(figsize=(width / 25.4, height / 25.4))
    figure.subplots_adjust(
        left=_GAP_MM / 2 / width, right=1 - _GAP_MM / 2 / width, wspace=_GAP_MM / _CELL_MM,
        bottom=_BELOW_MM / height, top=1 - _TITLE_MM / height, hspace=_BELOW_MM / _CELL_MM,
    )  # fmt: skip
    figure.suptitle(title or attention.store.name, fontsize=9, y=1 - 2 / height, va="top", parse_math=False)
    figure.text(
        1 - _GAP_MM / width, 1 - 7 / height, _say_origin(attention), ha="right", va="center", fontsize=6
    )
    rank = rank_of(order.values)
    panels = figure.subplots(len(rows), _COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, (heading, scale, chosen) in zip(panels, rows, strict=True):
        first = np.flatnonzero(attention.scale == scale)  # a scale's patches are in the order of the store
        line[0].set_title(heading, loc="left", fontsize=8, parse_math=False)
        pixels = attention.store.read(np.searchsorted(first, chosen), scale)
        for axes, patch, image in zip(line, chosen, pixels, strict=False):  # a row may be short
            axes.imshow(image)
            x, y = attention.coords[patch]
            caption = f"({x}, {y})\n{order.form.format(order.values[patch])}, rank {rank[patch]}"
            axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure


def _say_origin(attention: SlideAttention) -> str:
    left, top = attention.qupath_origin
    counted = "(x, y): level-0 pixels from the corner of the whole slide"
    return f"{counted}; QuPath counts from ({left}, {top})" if left or top else counted


def _rows(attention: SlideAttention, order: _Order) -> list[tuple[str, int, list[int]]]:
    """Heading, scale and patches of each row; no patch is at both ends."""
    rows = []
    for scale in attention.present_scales:
        here = np.flatnonzero(attention.scale == scale)
        rising = here[np.argsort(order.values[here], kind="stable")]
        half = len(rising) // 2
        for end, patches in {"highest": rising[half:][::-1], "lowest": rising[:half]}.items():
            shown = patches[: _COLUMNS * _ROWS].tolist()
            heading = f"{end} {order.name} at {attention.store.scales[scale]:g} µm/px"
            rows += [
                (heading if not start else "", scale, shown[start : start + _COLUMNS])
                for start in range(0, len(shown), _COLUMNS)
            ]
    return rows
