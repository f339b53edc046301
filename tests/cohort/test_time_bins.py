import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from e2e_abmilx.cohort.cases import read_cohort
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.time_bins import time_bins, time_edges


def _cases(times: list[float], *, event: int = 1, split: str = "train") -> list[Case]:
    return [Case(f"{split}{k}{event}", (str(k),), "", time, event, split) for k, time in enumerate(times)]


def _edges_or_refusal(cases: list[Case], num_bins: int, **how: str) -> np.ndarray | str:
    try:
        return time_edges(cases, num_bins, **how)  # type: ignore[arg-type]
    except CohortError as error:
        return str(error)


@pytest.mark.parametrize("fold", range(3))
def test_cohort_bins_equal_the_authors_labels(shared: Path, fold: int) -> None:
    cases = read_cohort(shared / f"data/labels/authors/survival_tcga_brca_3fold/fold_{fold}.csv")
    labels = np.array([int(case.label) for case in cases])
    times = [case.time for case in cases]
    edges = time_edges(cases, 4, bins="cohort")
    assert edges == pytest.approx([24.317, 42.683, 79.0], abs=5e-4)
    assert (time_bins(times, edges) == labels).all()
    # training events alone change the edges, and thereby 3 to 11 % of the labels
    changed = (time_bins(times, time_edges(cases, 4)) != labels).mean()
    assert 0.03 < changed < 0.11


@given(
    st.lists(st.floats(0, 200), min_size=4, max_size=60, unique=True),
    st.lists(st.floats(0, 300), min_size=1, max_size=60),
    st.integers(1, 5),
)
def test_cohort_bins_equal_the_authors_recipe(events: list[float], censored: list[float], num_bins: int) -> None:
    cases = _cases(events) + _cases(censored, event=0, split="test")
    edges = _edges_or_refusal(cases, num_bins, bins="cohort")
    assume(not isinstance(edges, str))
    times = np.array(events + censored)
    _, quantiles = pd.qcut(events, q=num_bins, retbins=True, labels=False)
    quantiles[0], quantiles[-1] = times.min() - 1e-6, times.max() + 1e-6
    expected = pd.cut(times, bins=quantiles, labels=False, right=False, include_lowest=True)
    assert (time_bins(times, edges) == expected).all()


def test_training_bins_do_not_depend_on_other_splits() -> None:
    train = _cases([1, 2, 3, 4, 5, 6, 7, 8]) + _cases([100, 200], event=0)
    expected = np.quantile([1, 2, 3, 4, 5, 6, 7, 8], [0.25, 0.5, 0.75])
    for others in ([], [0.5, 0.6], [90, 91, 92]):
        cases = train + _cases(others, split="val") + _cases(others, split="test")
        assert (time_edges(cases, 4) == expected).all()
    assert not (time_edges(cases, 4, bins="cohort") == expected).all()


@given(st.lists(st.integers(0, 50).map(float), min_size=1, max_size=60), st.integers(1, 6))
def test_every_bin_has_a_training_event_or_is_refused(events: list[float], num_bins: int) -> None:
    edges = _edges_or_refusal(_cases(events), num_bins)
    if isinstance(edges, str):
        assert f"cannot fill {num_bins} time bins" in edges
        assert len(set(events)) < max(2 * num_bins, len(events))  # distinct times can be separated
        return
    assert edges.shape == (num_bins - 1,)
    assert (np.diff(edges) > 0).all()
    assert set(time_bins(events, edges)) == set(range(num_bins))


def test_an_edge_is_in_the_later_bin_and_the_outer_bins_are_unbounded() -> None:
    edges = np.array([10.0, 20.0])
    assert time_bins([0, 9.999, 10, 19.999, 20, 1e9], edges).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("events", "num_bins", "message"),
    [
        ([], 4, "0 training events at 0 times cannot fill 4 time bins"),
        ([1, 2, 3], 4, "3 training events at 3 times cannot fill 4"),
        ([5] * 20, 4, "20 training events at 1 times cannot fill 4 time bins; lower time_bins"),
        ([1], 0, "time_bins is 0"),
    ],
)
def test_too_few_events_are_refused(events: list[float], num_bins: int, message: str) -> None:
    cases = _cases(events) + _cases([7, 8, 9, math.pi], event=0) + _cases([1, 2, 3, 4], split="test")
    with pytest.raises(CohortError, match=message):
        time_edges(cases, num_bins)
