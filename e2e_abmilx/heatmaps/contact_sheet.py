"""The patches that a head looks at most and least, side by side."""

import numpy as np
from matplotlib.figure import Figure

from e2e_abmilx.heatmaps.attention import SlideAttention

_COLUMNS, _ROWS = 6, 2  # patches of each end of the ranking
_CELL_MM, _GAP_MM, _BELOW_MM, _TITLE_MM = 29.0, 1.5, 13.0, 12.0


def draw_contact_sheet(attention: SlideAttention, *, title: str = "") -> Figure:
    """Draw the patches of the highest and of the lowest mean attention of each scale, with their coordinates.

    Args:
        attention: Of the slide.
        title: What to say above; by default the slide's name.
    """
    rows = _rows(attention)
    width, height = _COLUMNS * (_CELL_MM + _GAP_MM), _TITLE_MM + len(rows) * (_CELL_MM + _BELOW_MM)
    figure = Figure(figsize=(width / 25.4, height / 25.4))
    figure.subplots_adjust(
        left=_GAP_MM / 2 / width, right=1 - _GAP_MM / 2 / width, wspace=_GAP_MM / _CELL_MM,
        bottom=_BELOW_MM / height, top=1 - _TITLE_MM / height, hspace=_BELOW_MM / _CELL_MM,
    )  # fmt: skip
    figure.suptitle(title or attention.store.name, fontsize=9, y=1 - 2 / height, va="top")
    mean, rank = attention.mean(), attention.rank()
    panels = figure.subplots(len(rows), _COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, (heading, scale, chosen) in zip(panels, rows, strict=True):
        first = np.flatnonzero(attention.scale == scale)  # a scale's patches are in the order of the store
        line[0].set_title(heading, loc="left", fontsize=8)
        pixels = attention.store.read(np.searchsorted(first, chosen), scale)
        for axes, patch, image in zip(line, chosen, pixels, strict=False):  # a row may be short
            axes.imshow(image)
            x, y = attention.coords[patch]
            caption = f"({x}, {y})\n{mean[patch]:.3g}×, rank {rank[patch]}"
            axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure


def _rows(attention: SlideAttention) -> list[tuple[str, int, list[int]]]:
    """Heading, scale and patches of each row; no patch is at both ends."""
    rows = []
    mean = attention.mean()
    for scale in attention.present_scales:
        here = np.flatnonzero(attention.scale == scale)
        rising = here[np.argsort(mean[here], kind="stable")]
        half = len(rising) // 2
        for end, order in {"highest": rising[half:][::-1], "lowest": rising[:half]}.items():
            shown = order[: _COLUMNS * _ROWS].tolist()
            heading = f"{end} attention (times uniform) at {attention.store.scales[scale]:g} µm/px"
            rows += [
                (heading if not start else "", scale, shown[start : start + _COLUMNS])
                for start in range(0, len(shown), _COLUMNS)
            ]
    return rows
