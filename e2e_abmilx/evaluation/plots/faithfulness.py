"""Deletion and insertion curves of heatmaps."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from e2e_abmilx.evaluation.plots.style import COLOURS, GREY, CurveStyle, finish_axes, legend_label, new_axes

_STYLES = {
    "attention": CurveStyle(COLOURS[0], "-"),
    "contribution": CurveStyle(COLOURS[1], "--"),
    "random": CurveStyle(GREY, ":"),
}


def plot_patch_removal(
    curves: Mapping[str, ArrayLike],
    percent: Sequence[int],
    *,
    change: str,
    score: str,
    name: str = "",
    axes: Axes | None = None,
) -> Axes:
    """Draw a score while patches are removed or added in the order of each map; a random map is a grey line.

    Args:
        curves: Scores, shape ``(P,)``, by map: ``attention``, ``contribution`` or ``random``.
        percent: Percentage of the patches that were removed or added, shape ``(P,)``.
        change: What was done to them: ``removed`` or ``added``.
        score: Label of the y axis.
        name: Name of the model, in the legend.
        axes: Where to draw.
    """
    axes = axes or new_axes()
    for of_map, curve in curves.items():
        style = _STYLES[of_map]
        axes.plot(
            percent, curve, style.dashes, color=style.colour, linewidth=1.2, marker="o", markersize=2.5,
            label=legend_label(f"{name} {of_map}"),
        )  # fmt: skip
    axes.set_xlim(-1, 101)
    return finish_axes(axes, f"patches {change}, %, the highest of the map first", score)
