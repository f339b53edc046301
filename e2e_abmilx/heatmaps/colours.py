"""What the colours of a heatmap stand for."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.attention import SlideAttention

Kind = Literal["attention", "rank"]

COLOURS = "RdYlBu_r"  # uniform attention is its pale middle; colour-blind people can tell its ends apart
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_FEWEST, _MOST = 2.0, 100.0  # times uniform that the end of the colour bar may stand for


@dataclass(frozen=True)
class Colouring:
    """A number for each patch and how it becomes a colour.

    Attributes:
        label: What the numbers are, in two lines.
        values: For the mean over the heads and for each head, shape ``(1 + H, N)``.
        norm: From the numbers to 0 … 1.
        ticks: Numbers that the colour bar names.
        extend: Which ends of the colour bar stand for what lies beyond too, as matplotlib says it.
    """

    label: str
    values: NDArray[np.float32]
    norm: Normalize
    ticks: list[float]
    extend: Literal["neither", "both"]

    @classmethod
    def of(cls, attention: SlideAttention, kind: Kind) -> Self:
        """Colour patches by attention relative to uniform, or by its rank, which is always evenly spread."""
        planes = np.concatenate([attention.mean()[None], attention.heads])
        if kind == "rank":
            ranks = np.stack([np.searchsorted(np.sort(plane), plane, side="right") for plane in planes])
            percent = (100 / planes.shape[1] * ranks).astype(np.float32)
            label = "rank of attention\n(% of the slide's patches that have no more)"
            return cls(label, percent, Normalize(0, 100), [0, 25, 50, 75, 100], "neither")
        reach = _reach(planes[0])
        ticks = [tick for tick in _TICKS if 1 / reach <= tick <= reach]
        label = "attention (weights sum to 1 over the bag)\nrelative to uniform weights"
        return cls(label, planes, LogNorm(1 / reach, reach, clip=True), ticks, "both")


def _reach(mean: NDArray[np.float32]) -> float:
    """How far the colour bar reaches, as a factor to both sides of uniform, so that uniform is its middle."""
    low, high = np.quantile(mean, [0.005, 0.995])
    return float(np.clip(max(high, 1 / max(low, 1 / _MOST)), _FEWEST, _MOST))
