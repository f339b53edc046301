import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines.utils import concordance_index

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.concordance import Concordance

rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 8), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40
)


def _pairwise(risk: list[int], time: list[int], event: list[int], weight: list[int]) -> float:
    """Return Harrell's C by its definition, where each pair counts as often as it was drawn."""
    agreed = comparable = 0.0
    for i, j in itertools.permutations(range(len(risk)), 2):
        if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            pairs = weight[i] * weight[j]
            comparable += pairs
            agreed += pairs * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
    return agreed / comparable if comparable else math.nan


@given(rows)
def test_against_all_pairs(cases: list[tuple[int, int, int, int]]) -> None:
    risk, time, event, weight = (list(column) for column in zip(*cases, strict=True))
    found = Concordance(risk, time, event)(np.array(weight))
    assert found == pytest.approx(_pairwise(risk, time, event, weight), nan_ok=True)


@pytest.mark.parametrize("size", [2, 7, 64, 65, 1000])
def test_against_lifelines_on_resamples(size: int) -> None:
    generator = np.random.default_rng(size)
    risk, time = generator.normal(size=size).round(2), generator.exponential(9, size).round(1)
    event = generator.integers(0, 2, size)
    event[np.argmin(time)] = 1
    estimator = Concordance(risk, time, event)
    for _ in range(10):
        drawn = generator.integers(size, size=size)
        found = estimator(np.bincount(drawn, minlength=size))
        if not math.isnan(found):
            wanted = concordance_index(time[drawn], -risk[drawn], event[drawn])
            assert found == pytest.approx(wanted, abs=1e-12)


def test_known_orders() -> None:
    time, event, once = np.arange(9), [1, 0, 1, 1, 0, 1, 0, 1, 0], np.ones(9, dtype=int)
    assert Concordance(-time, time, event)(once) == 1
    assert Concordance(time, time, event)(once) == 0
    assert Concordance(np.zeros(9), time, event)(once) == 0.5


def test_nan_is_named_in_the_error() -> None:
    with pytest.raises(InputError, match="1 of 2 rows of 'risk' are NaN; leave those rows out"):
        Concordance([math.nan, 1.0], [1.0, 2.0], [1, 1])
