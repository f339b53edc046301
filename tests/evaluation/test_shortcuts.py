"""A planted shortcut has a small p-value; chance has not; too few cases are refused."""

from collections.abc import Callable

import numpy as np
import pytest
from lifelines import NelsonAalenFitter

from e2e_abmilx.evaluation.shortcuts import (
    Association,
    TooFewError,
    associate,
    classes_as_truth,
    martingale_residuals,
    refuse_uninformative,
    strata_of,
    survival_as_truth,
    values_as_truth,
)
from e2e_abmilx.evaluation.smoothers import category_means, draw_folds, ridge

ROWS = 120
SEEDS = 20


def _label_of_site(seed: int, share: float) -> Association:
    """Return how well one of six sites predicts a label that follows the site with a probability."""
    draw = np.random.default_rng(seed)
    site = draw.integers(0, 6, ROWS)
    label = np.where(draw.random(ROWS) < share, site % 2, draw.integers(0, 2, ROWS))
    return associate(category_means(site, draw_folds(ROWS)), classes_as_truth(label, draw_folds(ROWS)))


def _label_of_colours(seed: int, tint: float) -> Association:
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 2, ROWS)
    colours = draw.normal(size=(ROWS, 2)) @ draw.normal(size=(2, 21)) + 0.1 * draw.normal(size=(ROWS, 21))
    colours[:, :3] += tint * label[:, None]
    return associate(ridge(colours, draw_folds(ROWS)), classes_as_truth(label, draw_folds(ROWS)))


def _site_of_embeddings(seed: int, leak: float) -> Association:
    """Return how well embeddings of the label, and of the site if there is a leak, predict sites that differ in label."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 2, ROWS)
    site = np.where(draw.random(ROWS) < 0.6, label, draw.integers(0, 3, ROWS))
    of_label, of_site = draw.normal(size=(2, 64)), draw.normal(size=(3, 64))
    embedding = 2 * of_label[label] + leak * of_site[site] + draw.normal(size=(ROWS, 64))
    return associate(ridge(embedding, draw_folds(ROWS)), classes_as_truth(site, draw_folds(ROWS), label))


@pytest.mark.parametrize("make", [_label_of_site, _label_of_colours, _site_of_embeddings])
def test_planted_shortcuts_are_found_and_chance_is_not(make: Callable[[int, float], Association]) -> None:
    planted = make(0, 0.9)
    assert planted.p_value == 1e-3
    assert planted.estimate.low > 0.7
    clean = [make(seed, 0.0) for seed in range(SEEDS)]
    assert sum(one.p_value < 0.05 for one in clean) <= 3  # 1 is expected, and P(more than 3) is 2 %
    assert np.mean([one.estimate.point for one in clean]) == pytest.approx(0.5, abs=0.05)


def test_sites_that_the_label_predicts_seem_to_be_seen_without_strata() -> None:
    draw = np.random.default_rng(0)
    label = draw.integers(0, 2, ROWS)
    site = np.where(draw.random(ROWS) < 0.9, label, 1 - label)
    embedding = label[:, None] + 0.1 * draw.normal(size=(ROWS, 8))
    smooth = ridge(embedding, draw_folds(ROWS))
    assert associate(smooth, classes_as_truth(site, draw_folds(ROWS))).p_value == 1e-3
    assert associate(smooth, classes_as_truth(site, draw_folds(ROWS), label)).p_value > 0.05


def test_survival_and_values() -> None:
    draw = np.random.default_rng(0)
    site = draw.integers(0, 4, ROWS)
    time, event = draw.exponential(np.where(site % 2, 5, 40)), draw.integers(0, 2, ROWS)
    smooth = category_means(site, draw_folds(ROWS))
    found = associate(smooth, survival_as_truth(time, event))
    assert found.p_value == 1e-3
    assert found.estimate.low > 0.55
    assert associate(smooth, survival_as_truth(draw.permutation(time), event)).p_value > 0.05
    value = draw.normal(site == 2, 0.3)
    found = associate(smooth, values_as_truth(value))
    assert found.p_value == 1e-3
    assert found.estimate.low > 0.3
    assert associate(smooth, values_as_truth(draw.permutation(value))).p_value > 0.05


def test_residuals_against_lifelines() -> None:
    draw = np.random.default_rng(1)
    time, event = draw.exponential(9, 80).round(), draw.integers(0, 2, 80)
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(time, event).cumulative_hazard_at_times(time)
    found = martingale_residuals(time, event)
    np.testing.assert_allclose(found, event - hazard.to_numpy(), atol=1e-12)
    assert found.sum() == pytest.approx(0)


def test_strata_have_ten_rows() -> None:
    values = np.random.default_rng(0).normal(size=57)
    assert np.bincount(strata_of(values)).tolist() == [12, 11, 11, 11, 12]
    assert np.bincount(strata_of(np.arange(1000.0))).tolist() == [100] * 10
    assert set(strata_of(np.zeros(57)).tolist()) == {4}
    assert strata_of(np.arange(3.0)).tolist() == [0, 0, 0]


def test_a_rare_category_is_not_counted() -> None:
    label = ["a"] * 50 + ["b"] * 40 + ["c"] * 9
    perfect = np.stack([np.arange(99) < 50, (np.arange(99) >= 50) & (np.arange(99) < 90), np.zeros(99)], axis=1)
    truth = classes_as_truth(label, draw_folds(99))
    assert truth.estimator(perfect.astype(float), np.arange(99))(np.ones(99, np.int64)) == 1


def test_too_few_are_refused() -> None:
    half, fold = [0, 1] * 20, draw_folds(40)
    refused = [
        (lambda: classes_as_truth(half[:29], draw_folds(29)), "29 cases; at least 30 are needed, one per patient"),
        (lambda: classes_as_truth(["a"] * 40, fold), "all 40 cases have the value a"),
        (lambda: classes_as_truth([0] * 31 + [1] * 9, fold), "no value has 10 cases and 10 of other values to compare"),
        (lambda: classes_as_truth(half, fold, half), "compare them with within classes of the truth"),
        (lambda: survival_as_truth(range(40), [1] * 9 + [0] * 31), "9 events; at least 10"),
        (lambda: survival_as_truth([], []), "0 cases"),
        (lambda: values_as_truth([2.5] * 40), r"all 40 cases have the value 2\.5"),
        (lambda: refuse_uninformative(["A"] * 40), "all 40 cases have the value A"),
        (lambda: refuse_uninformative([*range(36), *[7] * 4]), "fewer than two of its 36 values have 5 cases each"),
    ]
    for call, message in refused:
        with pytest.raises(TooFewError, match=message):
            call()
    refuse_uninformative(["A"] * 35 + ["B"] * 5)
