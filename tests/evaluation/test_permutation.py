import itertools

import numpy as np
import pytest

from e2e_abmilx.evaluation.permutation import MOST_PERMUTATIONS, holm, permutation_p_value


def test_against_all_permutations() -> None:
    one, other = np.array([1.0, 2, 3, 4, 5, 6]), np.array([2.0, 1, 3, 6, 4, 5])
    stratum = np.array([0, 1, 0, 1, 0, 1])
    observed, reached = one @ other, []
    for even, odd in itertools.product(itertools.permutations([0, 2, 4]), itertools.permutations([1, 3, 5])):
        order = np.array([even[0], odd[0], even[1], odd[1], even[2], odd[2]])
        reached.append(one @ other[order] >= observed)
    found = [permutation_p_value(lambda order: float(one @ other[order]), stratum, seed=seed) for seed in range(60)]
    assert np.mean(found) == pytest.approx(np.mean(reached), rel=0.15)


def test_rows_stay_in_their_stratum() -> None:
    stratum, orders = np.array([3, 1, 3, 1, 1, 7]), []
    permutation_p_value(lambda order: float(orders.append(order) or -len(orders)), stratum)
    assert (orders[0] == np.arange(6)).all()
    assert len({tuple(order) for order in orders}) == 12  # 2! · 3!
    for order in orders:
        assert sorted(order) == list(range(6))
        assert (stratum[order] == stratum).all()


def test_p_values_of_independent_columns_are_not_too_small() -> None:
    found = []
    for seed in range(300):
        one, other = np.random.default_rng(seed).normal(size=(2, 20))
        p_value = permutation_p_value(lambda order, a=one, b=other: float(a @ b[order]), np.zeros(20), seed=seed)
        found.append(p_value)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 300)


def test_the_smallest_p_value_and_an_early_end() -> None:
    calls = []
    assert permutation_p_value(lambda order: float((order == np.arange(50)).all()), np.zeros(50)) == 1e-3
    assert permutation_p_value(lambda order: float(calls.append(0) or 0), np.zeros(50)) == 1
    assert len(calls) == 21 < MOST_PERMUTATIONS


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []
