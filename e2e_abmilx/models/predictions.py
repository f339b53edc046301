"""The prediction of one or several models for a case, and for many cases as a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.data.contract import InputContract

_PROBABILITY, _SURVIVAL = "probability_", "survival_"


@dataclass(frozen=True)
class AttendedPatches:
    """The patches of a case and the attention of each model's heads to them.

    Attributes:
        slides: The slide of each patch, shape ``(N,)``.
        coords: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``; (-1, -1) where unknown.
        scale: Scale of each patch, as a number of the contract's ``mpp``, shape ``(N,)``.
        attention: Weights of all heads of all models, each row with sum 1, shape ``(H, N)``.
    """

    slides: NDArray[np.str_]
    coords: NDArray[np.int64]
    scale: NDArray[np.int64]
    attention: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class CasePrediction:
    """What models predict for a case.

    Attributes:
        case: Name of the case.
        truth: Its label, time and event or labels, by the names of the table's columns; empty values where unknown.
        members: Scores of each model, by the names of the table's columns.
        threshold: The threshold of the last score, mean over the models; None without one.
        patches: Its patches, and the attention to them.
    """

    case: str
    truth: Mapping[str, object]
    members: tuple[Mapping[str, float], ...]
    threshold: float | None
    patches: AttendedPatches = field(repr=False)

    @property
    def scores(self) -> dict[str, float]:
        """Mean over the models of each score that all of them have: survival at a month only if all have that edge."""
        names = [name for name in self.members[0] if all(name in member for member in self.members)]
        return {name: statistics.fmean(member[name] for member in self.members) for name in names}

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation over the models of each score, with n - 1; 0 for a single model."""
        if len(self.members) == 1:
            return dict.fromkeys(self.scores, 0.0)
        return {name: statistics.stdev(member[name] for member in self.members) for name in self.scores}

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each class; empty for other targets."""
        return self._of(_PROBABILITY)

    @property
    def label(self) -> str | None:
        """The most probable class; None for targets without classes, or where a case may have several of them."""
        if "label" not in self.truth:
            return None
        return max(self.probabilities, key=self.probabilities.__getitem__, default=None)

    @property
    def risk(self) -> float | None:
        """Risk of a survival model, higher for earlier events; None for other targets."""
        return self.scores.get("risk")

    @property
    def value(self) -> float | None:
        """The predicted number of a regression, in the unit of its label table; None for other targets."""
        return self.scores.get("predicted_value")

    @property
    def survival(self) -> dict[float, float]:
        """Probability of surviving the end of each time bin but the last, by its months."""
        return {float(months): probability for months, probability in self._of(_SURVIVAL).items()}

    @property
    def reaches_threshold(self) -> bool | None:
        """Whether the last score, of the second class or the risk, is at or above the threshold; None without one."""
        return None if self.threshold is None else list(self.scores.values())[-1] >= self.threshold

    def _of(self, prefix: str) -> dict[str, float]:
        return {name.removeprefix(prefix): value for name, value in self.scores.items() if name.startswith(prefix)}

    def row(self) -> dict[str, object]:
        """Return a row of ``predictions.csv``; several models add std, minimum and maximum of each score."""
        row: dict[str, object] = {"case": self.case, **self.truth, **self.scores}
        if len(self.members) > 1:
            for name in self.scores:
                values = [member[name] for member in self.members]
                row |= {f"std_{name}": self.std[name], f"min_{name}": min(values), f"max_{name}": max(values)}
        if self.label is not None:
            row["predicted"] = self.label
        if self.reaches_threshold is not None:
            row |= {"threshold": self.threshold, "reaches_threshold": "yes" if self.reaches_threshold else "no"}
        return row


def mean_threshold(contracts: Sequence[InputContract]) -> float | None:
    """Return the mean of the models' thresholds; None if a model has none."""
    values = [None if contract.threshold is None else contract.threshold.value for contract in contracts]
    return None if None in values else statistics.fmean(value for value in values if value is not None)
