"""A contact sheet: the patches with the highest and the lowest attention or contribution of a slide."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.attention import SlideAttention, rank_of
from e2e_abmilx.heatmaps.colours import Kind

_COLUMNS, _ROWS = 6, 2  # of patches, for each end of the ranking
_CELL_MM, _GAP_MM, _BELOW_MM, _TITLE_MM = 29.0, 1.5, 13.0, 12.0


def draw_contact_sheet(attention: SlideAttention, *, kind: Kind = "attention", title: str = "") -> Figure:
    """Draw the patches at both ends of each scale's ranking, with their coordinates.

    Args:
        attention: Attention of the slide.
        kind: Patches are sorted by contribution if this is ``"contribution"``, otherwise by mean attention.
        title: Title, by default the slide's name.

    Returns:
        A figure, as from :func:`~e2e_abmilx.heatmaps.draw_overlay`, with the same errors.
    """
    if kind == "contribution":
        contribution = attention.known_contribution()
        name, values, form = f"contribution to the {contribution.score}", contribution.values, "{:+.3g}"
    else:
        name, values, form = "attention (times uniform)", attention.mean(), "{:.3g}×"
    rows = _rows(attention, name, values)
    figure = _blank_sheet(attention, len(rows), title or attention.store.name)
    rank = rank_of(values)
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
            caption = f"({x}, {y})\n{form.format(values[patch])}, rank {rank[patch]}"
            axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure


def _blank_sheet(attention: SlideAttention, rows: int, title: str) -> Figure:
    """Make a figure with room for the rows, with a title and the origin of the coordinates."""
    width, height = _COLUMNS * (_CELL_MM + _GAP_MM), _TITLE_MM + rows * (_CELL_MM + _BELOW_MM)
    figure = Figure(figsize=(width / 25.4, height / 25.4))
    figure.subplots_adjust(
        left=_GAP_MM / 2 / width, right=1 - _GAP_MM / 2 / width, wspace=_GAP_MM / _CELL_MM,
        bottom=_BELOW_MM / height, top=1 - _TITLE_MM / height, hspace=_BELOW_MM / _CELL_MM,
    )  # fmt: skip
    figure.suptitle(title, fontsize=9, y=1 - 2 / height, va="top", parse_math=False)
    origin = "(x, y): level-0 pixels from the corner of the whole slide"
    if any(attention.qupath_origin):
        origin += f"; QuPath counts from {attention.qupath_origin}"
    figure.text(1 - _GAP_MM / width, 1 - 7 / height, origin, ha="right", va="center", fontsize=6)
    return figure


def _rows(attention: SlideAttention, name: str, values: NDArray[np.floating]) -> list[tuple[str, int, list[int]]]:
    """Return heading, scale and patches of each row; no patch is at both ends."""
    rows = []
    for scale in attention.present_scales:
        here = np.flatnonzero(attention.scale == scale)
        rising = here[np.argsort(values[here], kind="stable")]
        half = len(rising) // 2
        for end, patches in {"highest": rising[half:][::-1], "lowest": rising[:half]}.items():
            shown = patches[: _COLUMNS * _ROWS].tolist()
            heading = f"{end} {name} at {attention.store.scales[scale]:g} µm/px"
            rows += [
                (heading if not start else "", scale, shown[start : start + _COLUMNS])
                for start in range(0, len(shown), _COLUMNS)
            ]
    return rows
