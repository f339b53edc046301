"""Predictions to draw, and what a figure shows of them."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray


class Rows(NamedTuple):
    probability: NDArray[np.float64]
    label: NDArray[np.int64]
    cases: list[str]


def make_rows(count: int = 60, *, gap: float = 1.0, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    score = np.round(gap * label + rng.normal(size=count), 1)  # rounded, so that there are ties
    return Rows(1 / (1 + np.exp(-score)), label, [f"case-{i // 2}" for i in range(count)])


def legend_texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def curves_of(axes: Axes) -> list[NDArray[np.float64]]:
    """Return the points of the named lines."""
    return [line.get_xydata() for line in axes.lines if not str(line.get_label()).startswith("_")]
