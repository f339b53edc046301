"""Discrete times of a survival model."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError


def time_edges(
    cases: Sequence[Case], num_bins: int, *, bins: Literal["train", "cohort"] = "train"
) -> np.ndarray:
    """Where time bins meet: quantiles of the times at which events happened.

    Args:
        cases: The cohort.
        num_bins: Number of bins.
        bins: ``"train"``: events of the training split only. ``"cohort"``: of all splits, as the authors do it; the
            test split then has a part in what is learnt, so use it to compare with their results only.

    Returns:
        Inner edges in months, ``(num_bins - 1,)``, increasing.

    Raises:
        CohortError: The events cannot fill that many bins.
    """
    if num_bins < 1:
        raise CohortError(f"time_bins is {num_bins}; there must be at least 1")
    times = np.array(
        [case.time for case in cases if case.event and (bins == "cohort" or case.split == "train")]
    )
    # By pandas, as the authors: numpy's own rounding puts an event that is on an edge into another bin.
    quantiles = pd.Series(times, dtype=float).quantile(np.linspace(0, 1, num_bins + 1)[1:-1])
    edges = quantiles.to_numpy()
    if len(set(time_bins(times, edges).tolist())) < num_bins:
        which = "events" if bins == "cohort" else "training events"
        raise CohortError(
            f"{len(times)} {which} at {len(set(times.tolist()))} times cannot fill {num_bins} time bins; lower time_bins"
        )
    return edges


def time_bins(times: Sequence[float] | np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number the bin of each time; a time on an edge is in the later bin.

    Args:
        times: Months, ``(n,)``.
        edges: Inner edges in months, ``(num_bins - 1,)``.

    Returns:
        Bins, ``(n,)``, from 0; the first and the last reach as far as any time does.
    """
    found: np.ndarray = np.searchsorted(edges, np.asarray(times), side="right")
    return found
