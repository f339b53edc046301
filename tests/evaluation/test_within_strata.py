import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.evaluation.within_strata import AurocWithinStrata

rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1), st.integers(0, 2), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


def _pairwise(score: list[int], positive: list[bool], stratum: list[int], weight: list[int]) -> float:
    won = pairs = 0.0
    for i, j in itertools.product(range(len(score)), repeat=2):
        if positive[i] and not positive[j] and stratum[i] == stratum[j]:
            pairs += weight[i] * weight[j]
            won += weight[i] * weight[j] * (1 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0)
    return won / pairs if pairs else math.nan


@given(rows)
def test_against_all_pairs(cases: list[tuple[int, int, int, int, int]]) -> None:
    *scores, category, stratum, weight = (list(column) for column in zip(*cases, strict=True))
    found = AurocWithinStrata(np.stack(scores, axis=1), category, stratum, [0, 1])(np.array(weight))
    one, two = (_pairwise(scores[k], [c == k for c in category], stratum, weight) for k in range(2))
    assert found == pytest.approx((one + two) / 2, nan_ok=True)


def test_one_stratum_is_the_area_of_all_pairs() -> None:
    generator = np.random.default_rng(0)
    scores, label = generator.normal(size=(200, 3)).round(1), generator.integers(0, 3, 200)
    weight = generator.integers(0, 3, 200)
    found = AurocWithinStrata(scores, label, np.zeros(200), [0, 1, 2])(weight)
    assert found == pytest.approx(Auroc(scores, label)(weight))
    assert math.isnan(AurocWithinStrata(scores, label, np.arange(200), [0])(weight))
