"""What the colours of a heatmap stand for."""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.attention import Contribution, SlideAttention

Kind = Literal["attention", "rank", "contribution"]

#: Its pale middle is uniform attention, or no contribution; colour-blind people can tell its ends apart.
COLOURS = "RdYlBu_r"
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_FEWEST, _MOST = 2.0, 100.0  # times uniform that the end of the colour bar may stand for
_SMALLEST = 1e-9  # contribution that the end of the colour bar may stand for: less is rounding
_LINEAR_SHARE = 1 / 30  # of the reach, around 0; beyond it colours follow the logarithm


@dataclass(frozen=True)
class Colouring:
    """Numbers for each patch and how they become colours.

    Attributes:
        label: What the numbers are, in two lines.
        names: Of the planes: the one that sums up, first, and those it is made of, if any.
        values: Of each plane, shape ``(planes, N)``.
        norm: From the numbers to 0 … 1.
        ticks: Numbers that the colour bar names.
        extend: Which ends of the colour bar stand for what lies beyond too, as matplotlib says it.
    """

    label: str
    names: list[str]
    values: NDArray[np.floating]
    norm: Normalize
    ticks: list[float]
    extend: Literal["neither", "both"]

    @classmethod
    def of(cls, attention: SlideAttention, kind: Kind) -> Self:
        """Colour patches by attention relative to uniform, its rank, or what they contribute.

        Raises:
            HeatmapError: Contributions are asked for and not there.
        """
        if kind == "contribution":
            return cls._of_contribution(attention.known_contribution())
        heads = len(attention.heads)
        names, planes = ["attention"], attention.heads
        if heads > 1:
            names = [f"mean of {heads} heads", *(f"head {number}" for number in range(1, heads + 1))]
            planes = np.concatenate([attention.mean()[None], planes])
        return cls._of_rank(names, planes) if kind == "rank" else cls._of_weights(names, planes)

    @classmethod
    def _of_weights(cls, names: list[str], planes: NDArray[np.float32]) -> Self:
        """As far to both sides of uniform, so that uniform is the middle of the colours."""
        low, high = np.quantile(planes[0], [0.005, 0.995])
        reach = float(np.clip(max(high, 1 / max(low, 1 / _MOST)), _FEWEST, _MOST))
        ticks = [tick for tick in _TICKS if 1 / reach <= tick <= reach]
        label = "attention (weights sum to 1 over the bag)\nrelative to uniform weights"
        return cls(label, names, planes, LogNorm(1 / reach, reach, clip=True), ticks, "both")

    @classmethod
    def _of_rank(cls, names: list[str], planes: NDArray[np.float32]) -> Self:
        """Evenly spread, whatever the attention."""
        ranks = np.stack([np.searchsorted(np.sort(plane), plane, side="right") for plane in planes])
        percent = (100 / planes.shape[1] * ranks).astype(np.float32)
        label = "rank of attention\n(% of the slide's patches that have no more)"
        return cls(label, names, percent, Normalize(0, 100), [0, 25, 50, 75, 100], "neither")

    @classmethod
    def _of_contribution(cls, contribution: Contribution) -> Self:
        """As far to both sides of 0 as any patch goes; a few strong patches leave the colours of weak ones apart."""
        reach = _round_up(max(float(np.abs(contribution.values).max()), _SMALLEST))
        norm = AsinhNorm(reach * _LINEAR_SHARE, -reach, reach)
        label = f"contribution to the {contribution.score}:\nwith the patch minus without it"
        ticks = [-reach, -reach / 10, 0, reach / 10, reach]
        return cls(label, ["contribution"], contribution.values[None], norm, ticks, "neither")


def _round_up(value: float) -> float:
    """The next of 1, 2 or 5 × 10^k."""
    power = 10.0 ** math.floor(math.log10(value))
    return min(step * power for step in (1, 2, 5, 10) if step * power >= value)
