"""The numbers that a heatmap shows, and the colours that they get."""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.attention import Contribution, SlideAttention

Kind = Literal["attention", "rank", "contribution"]

#: Safe for colour-blind readers; its pale middle stands for uniform attention, or for no contribution.
COLOUR_MAP = "RdYlBu_r"
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_LEAST_REACH, _MOST_REACH = 2.0, 100.0  # bounds of the upper end of the colour bar, times uniform attention
_SMALLEST = 1e-9  # contributions below this are rounding errors
_LINEAR_FRACTION = 1 / 30  # of the colour bar's half, linear around 0; logarithmic beyond it


@dataclass(frozen=True)
class Colouring:
    """The numbers of each patch and the rules that turn them into colours.

    Attributes:
        label: Meaning of the numbers, in two lines.
        names: Names of the planes: first the summary, then the heads that it is made of, if there are several.
        values: Numbers of each plane, shape ``(planes, N)``.
        norm: Maps the numbers to 0 … 1.
        ticks: Numbers at which the colour bar has ticks.
        extend: Ends of the colour bar that also stand for values beyond them, as matplotlib's ``extend``.
    """

    label: str
    names: list[str]
    values: NDArray[np.floating]
    norm: Normalize
    ticks: list[float]
    extend: Literal["neither", "both"]

    @classmethod
    def from_attention(cls, attention: SlideAttention, kind: Kind) -> Self:
        """Colour patches by attention relative to uniform attention, by its rank, or by contribution.

        Raises:
            HeatmapError: The kind is ``"contribution"`` and the contributions are unknown.
        """
        if kind == "contribution":
            return cls._from_contribution(attention.known_contribution())
        heads = len(attention.heads)
        names, planes = ["attention"], attention.heads
        if heads > 1:
            names = [f"mean of {heads} heads", *(f"head {number}" for number in range(1, heads + 1))]
            planes = np.concatenate([attention.mean()[None], planes])
        return cls._from_rank(names, planes) if kind == "rank" else cls._from_weights(names, planes)

    @classmethod
    def _from_weights(cls, names: list[str], planes: NDArray[np.float32]) -> Self:
        """Colour by attention; the range is symmetric, so that uniform attention gets the middle colour."""
        low, high = np.quantile(planes[0], [0.005, 0.995])
        reach = float(np.clip(max(high, 1 / max(low, 1 / _MOST_REACH)), _LEAST_REACH, _MOST_REACH))
        ticks = [tick for tick in _TICKS if 1 / reach <= tick <= reach]
        label = "attention (weights sum to 1 over the bag)\nrelative to uniform weights"
        return cls(label, names, planes, LogNorm(1 / reach, reach, clip=True), ticks, "both")

    @classmethod
    def _from_rank(cls, names: list[str], planes: NDArray[np.float32]) -> Self:
        """Colour by percentile, which uses all colours equally often."""
        ranks = np.stack([np.searchsorted(np.sort(plane), plane, side="right") for plane in planes])
        percent = (100 / planes.shape[1] * ranks).astype(np.float32)
        label = "rank of attention\n(% of the slide's patches that have no more)"
        return cls(label, names, percent, Normalize(0, 100), [0, 25, 50, 75, 100], "neither")

    @classmethod
    def _from_contribution(cls, contribution: Contribution) -> Self:
        """Colour by contribution; the logarithm keeps weak patches distinguishable next to a few strong ones."""
        reach = _round_up(max(float(np.abs(contribution.values).max()), _SMALLEST))
        norm = AsinhNorm(reach * _LINEAR_FRACTION, -reach, reach)
        label = f"contribution to the {contribution.score}:\nwith the patch minus without it"
        ticks = [-reach, -reach / 10, 0, reach / 10, reach]
        return cls(label, ["contribution"], contribution.values[None], norm, ticks, "neither")


def _round_up(value: float) -> float:
    """Return the next number of the form 1, 2 or 5 × 10^k."""
    power = 10.0 ** math.floor(math.log10(value))
    return min(step * power for step in (1, 2, 5, 10) if step * power >= value)
