"""Time bins of a discrete-time survival model."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError

#: Cases whose events decide the time bins.
BinSource = Literal["train", "cohort"]


def time_edges(cases: Sequence[Case], num_bins: int, *, bins: BinSource = "train") -> np.ndarray:
    """Return the edges between time bins: quantiles of the event times.

    Args:
        cases: The cohort, with splits.
        num_bins: Number of bins.
        bins: ``"train"`` uses the events of the training split. ``"cohort"`` uses those of all splits, as the authors
            do; training then depends on the test split, so use it only to compare with their results.

    Returns:
        Inner edges in months, ``(num_bins - 1,)``, increasing.

    Raises:
        CohortError: The events cannot fill that many bins.
    """
    if num_bins < 1:
        raise CohortError(f"time_bins is {num_bins}; there must be at least 1")
    times = np.array([case.time for case in cases if case.event and (bins == "cohort" or case.split == "train")])
    # pandas, as in the authors' code: numpy rounds differently, which moves events on an edge to another bin
    quantiles = pd.Series(times, dtype=float).quantile(np.linspace(0, 1, num_bins + 1)[1:-1])
    edges = quantiles.to_numpy()
    if len(set(time_bins(times, edges).tolist())) < num_bins:
        which = "events" if bins == "cohort" else "training events"
        raise CohortError(
            f"{len(times)} {which} at {len(set(times.tolist()))} times cannot fill {num_bins} time bins; lower time_bins"
        )
    return edges


def time_bins(times: Sequence[float] | np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin of each time; a time on an edge is in the later bin.

    Args:
        times: Months, ``(n,)``.
        edges: Inner edges in months, ``(num_bins - 1,)``.

    Returns:
        Bins, ``(n,)``, counted from 0; the first and last bin are unbounded.
    """
    found: np.ndarray = np.searchsorted(edges, np.asarray(times), side="right")
    return found
