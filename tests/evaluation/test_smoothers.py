import numpy as np
import pytest

from e2e_abmilx.evaluation.smoothers import FOLDS, category_means, combine, draw_folds, ridge


def test_folds_are_of_one_size_and_reproducible() -> None:
    fold = draw_folds(53)
    assert sorted(np.bincount(fold).tolist()) == [10, 10, 11, 11, 11]
    assert (fold == draw_folds(53)).all()
    assert (fold != draw_folds(53, seed=1)).any()


def test_means_of_categories_against_loops() -> None:
    generator = np.random.default_rng(0)
    category, truth = generator.integers(0, 4, 40).astype(str), generator.normal(size=(40, 2))
    fold = draw_folds(40)
    found = category_means(category, fold)(truth)
    for row in range(40):
        others = [other for other in range(40) if fold[other] != fold[row]]
        mean = truth[others].mean(axis=0)
        own = [truth[other] - mean for other in others if category[other] == category[row]]
        assert found[row] == pytest.approx(np.sum(own, axis=0) / (len(own) + 5))


def test_a_category_that_only_one_fold_has_predicts_the_mean() -> None:
    fold = np.arange(20) % FOLDS
    category = np.where(fold == 0, "new", "old")
    assert not category_means(category, fold)(np.random.default_rng(0).normal(size=(20, 1)))[fold == 0].any()


@pytest.mark.parametrize(("rows", "width"), [(60, 4), (40, 90)])
def test_ridge_against_the_normal_equations(rows: int, width: int) -> None:
    generator = np.random.default_rng(rows)
    features = generator.normal(size=(rows, width)) * 10.0 ** generator.integers(-2, 3, width) + 7
    truth, fold = generator.normal(size=(rows, 2)), draw_folds(rows)
    found = ridge(np.concatenate([features, np.full((rows, 1), 3.1)], axis=1), fold)(truth)
    scaled = (features - features.mean(0)) / features.std(0)
    for number in range(FOLDS):
        train, test = scaled[fold != number], scaled[fold == number]
        centred = train - train.mean(0)
        gram, parameters = centred.T @ centred, min(len(train) / 10, 0.95 * min(width, len(train) - 1))
        low, high = 1e-9, 1e9
        for _ in range(200):  # bisection for the penalty that leaves so many parameters
            penalty = np.sqrt(low * high)
            left = np.trace(np.linalg.solve(gram + penalty * np.eye(width), gram))
            low, high = (penalty, high) if left > parameters else (low, penalty)
        own = truth[fold != number]
        weights = np.linalg.solve(gram + penalty * np.eye(width), centred.T @ (own - own.mean(0)))
        np.testing.assert_allclose(found[fold == number], (test - train.mean(0)) @ weights, atol=1e-6)


def test_features_that_do_not_vary_predict_nothing() -> None:
    assert not ridge(np.full((20, 3), 0.1), draw_folds(20))(np.arange(20.0)[:, None]).any()


def test_parts_predict_their_own_rows() -> None:
    rows = np.arange(6) < 2
    found = combine([(lambda truth: truth * 2, rows), (lambda truth: truth * 3, ~rows)])(np.ones((6, 1)))
    assert found[:, 0].tolist() == [2, 2, 3, 3, 3, 3]
