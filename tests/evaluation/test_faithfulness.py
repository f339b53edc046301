"""Deletion and insertion curves against a slow reference, and maps that are known to be right, reversed or random."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.faithfulness import (
    DELETED,
    INSERTED,
    RANDOM_ORDERS,
    Curves,
    kept_patches,
    most_evaluations,
    removal_curves,
)


def _mean_of(evidence: NDArray[np.float64]) -> Callable[[NDArray[np.intp]], NDArray[np.float64]]:
    """Return a model that predicts the mean of its patches, to which each adds what it has above the mean."""
    return lambda kept: evidence[kept].mean(axis=1)


def _slow_curves(evidence: list[float], importance: list[float]) -> tuple[list[float], list[float]]:
    """Compute both curves patch by patch, from the definition, for values without ties."""
    count = len(evidence)
    order = sorted(range(count), key=lambda patch: importance[patch], reverse=True)
    deletion, insertion = [], []
    for percent in INSERTED:
        added = max(1, int(percent * count / 100 + 0.5))
        insertion.append(sum(evidence[patch] for patch in order[:added]) / added)
    for percent in DELETED:
        left = max(1, int((100 - percent) * count / 100 + 0.5))
        kept = order[count - left :]
        deletion.append(sum(evidence[patch] for patch in kept) / left)
    return deletion, insertion


@settings(max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=70), st.integers(0, 2**32))
def test_curves_are_those_of_the_slow_reference(evidence: list[float], seed: int) -> None:
    importance = np.random.default_rng(seed).permutation(len(evidence)).astype(float).tolist()
    (found, _) = removal_curves(_mean_of(np.array(evidence)), {"map": importance}).values()
    deletion, insertion = _slow_curves(evidence, importance)
    np.testing.assert_allclose(found.deletion, deletion, atol=1e-12)
    np.testing.assert_allclose(found.insertion, insertion, atol=1e-12)
    heights = [
        (y + z) / 2 * (b - a) for a, b, y, z in zip(INSERTED, INSERTED[1:], insertion, insertion[1:], strict=False)
    ]
    assert found.insertion_area == pytest.approx(sum(heights) / 99, abs=1e-12)
    assert min(deletion) - 1e-12 <= found.deletion_area <= max(deletion) + 1e-12


def test_points_lie_where_the_percentages_say() -> None:
    assert DELETED == (0, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99)
    assert kept_patches(1000) == [10 * percent for percent in INSERTED]
    assert kept_patches(4) == [1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4]
    flat = Curves(np.full(16, 0.3), np.full(16, 0.7))
    assert (flat.deletion_area, flat.insertion_area) == pytest.approx((0.3, 0.7))


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(0, 2**32))
def test_no_order_beats_the_order_of_known_evidence(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=count)
    found = removal_curves(
        _mean_of(evidence), {"true": evidence, "other": rng.normal(size=count), "reversed": -evidence}, seed=seed
    )
    for name in ("other", "reversed", "random"):
        assert (found["true"].deletion <= found[name].deletion + 1e-12).all()
        assert (found["true"].insertion >= found[name].insertion - 1e-12).all()
    assert (found["reversed"].deletion >= found["random"].deletion - 1e-12).all()


def test_a_map_that_marks_nothing_is_a_random_map() -> None:
    """A constant map must not inherit the order of the patches, which is that of the slide."""
    evidence = np.arange(200.0)
    model, areas = _mean_of(evidence), []
    for seed in range(40):
        found = removal_curves(model, {"constant": np.ones(200)}, seed=seed)
        areas.append([found["constant"].deletion_area, found["random"].deletion_area])
    assert np.mean(areas, axis=0) == pytest.approx([evidence.mean()] * 2, abs=3)
    in_order = removal_curves(model, {"order": -evidence})["order"]
    assert in_order.deletion_area > evidence.mean() + 40


def test_the_random_map_has_one_area_and_depends_on_the_seed_only() -> None:
    evidence = np.random.default_rng(0).normal(size=50)
    first, again, other = (removal_curves(_mean_of(evidence), {"map": evidence}, seed=seed) for seed in (1, 1, 2))
    random = first["random"]
    assert random.deletion_area == pytest.approx(random.insertion_area)
    assert random.deletion.tolist() == random.insertion[::-1].tolist()
    assert random.deletion.tolist() == again["random"].deletion.tolist() != other["random"].deletion.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_models_see_ascending_patches_and_are_asked_as_often_as_stated(count: int) -> None:
    asked: list[list[int]] = []

    def model(kept: NDArray[np.intp]) -> list[int]:
        asked.extend(kept.tolist())
        return [len(one) for one in kept]

    maps = {"one": np.arange(count), "two": -np.arange(count)}
    removal_curves(model, maps)
    assert all(kept and kept == sorted(set(kept)) for kept in asked)
    assert len(asked) <= most_evaluations(2) == 1 + (4 + RANDOM_ORDERS) * 15 == 136
    assert (len(asked) == 136) == (count == 1000)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, r"the maps have shapes \{\}"),
        ({"a": []}, r"give one value for each patch"),
        ({"a": [1, 2], "b": [1, 2, 3]}, r"'a': \(2,\), 'b': \(3,\)"),
        ({"a": [[1, 2]]}, r"\(1, 2\)"),
        ({"a": [1, np.nan]}, "the map a has values that are not finite"),
    ],
)
def test_maps_without_ranks_are_refused(maps: dict[str, list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        removal_curves(lambda kept: kept[:, 0], maps)
