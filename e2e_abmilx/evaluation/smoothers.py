"""Cross-validated predictions that are linear in what is predicted, so that a permutation test can refit them quickly.

Letters: n rows, D features, K predicted columns.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

FOLDS = 5
_ROWS_PER_PARAMETER = 10  # the usual rule of thumb for a regression
_PRIOR_ROWS = 5  # rows at the overall mean, added to each category

#: From the truth of all rows to predictions of the rows that were left out, both of shape ``(n, K)``. Predictions are
#: differences from the mean of the rows that they are fitted to, so that rows of several folds can be compared.
Smoother = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def draw_folds(rows: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Draw a fold for each row, shape ``(n,)``; folds differ in size by one row at most."""
    return np.random.default_rng(seed).permutation(rows) % FOLDS


def category_means(category: ArrayLike, fold: NDArray[np.int64]) -> Smoother:
    """Return the smoother whose prediction is the mean of the row's category in the other folds.

    Five rows at the overall mean are added to each category, so that a rare one predicts little.

    Args:
        category: Of each row, shape ``(n,)``.
        fold: Of each row, shape ``(n,)``.
    """
    number = np.unique(np.asarray(category), return_inverse=True)[1]
    member = (number[:, None] == np.arange(number.max() + 1)).astype(np.float64)

    def smooth(truth: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = np.empty_like(truth)
        for out in _left_out(fold):
            centred = truth[~out] - truth[~out].mean(axis=0)
            sums, counts = member[~out].T @ centred, member[~out].sum(axis=0)
            predicted[out] = (sums / (counts + _PRIOR_ROWS)[:, None])[number[out]]
        return predicted

    return smooth


def ridge(features: NDArray[np.float64], fold: NDArray[np.int64]) -> Smoother:
    """Return the smoother that predicts by ridge regression on standardised features.

    Its penalty depends on the features only: it leaves one effective parameter, the trace of the smoothing matrix, for
    ten rows (Hastie, Tibshirani, Friedman: The Elements of Statistical Learning, 2009, Eq. 3.50). Of classes, as columns
    of 0 and 1, this is the regularised linear discriminant.

    Args:
        features: Shape ``(n, D)``.
        fold: Of each row, shape ``(n,)``.
    """
    spread = features.std(axis=0)
    varies = spread > 1e-6 * np.abs(features).max(axis=0, initial=1e-30)
    scaled = (features[:, varies] - features[:, varies].mean(axis=0)) / spread[varies]
    parts = [(out, _matrix(scaled[~out], scaled[out])) for out in _left_out(fold)]

    def smooth(truth: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = np.empty_like(truth)
        for out, matrix in parts:
            predicted[out] = matrix @ (truth[~out] - truth[~out].mean(axis=0))
        return predicted

    return smooth


def combine(parts: Sequence[tuple[Smoother, NDArray[np.bool_]]]) -> Smoother:
    """Return the smoother that predicts the rows of each part, marked in an array of shape ``(n,)``, by its own."""

    def smooth(truth: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = np.zeros_like(truth)
        for own, rows in parts:
            predicted[rows] = own(truth[rows])
        return predicted

    return smooth


def _left_out(fold: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    return [fold == number for number in np.unique(fold)]


def _matrix(train: NDArray[np.float64], test: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that predicts the test rows from the centred truth of the training rows."""
    mean = train.mean(axis=0)
    left, size, right = np.linalg.svd(train - mean, full_matrices=False)
    kept = size > 1e-8 * size.max(initial=1e-30)
    left, size, right = left[:, kept], size[kept], right[kept]
    if not len(size):
        return np.zeros((len(test), len(train)))
    penalty = _penalty(size**2, min(len(train) / _ROWS_PER_PARAMETER, 0.95 * len(size)))
    matrix: NDArray[np.float64] = ((test - mean) @ right.T * (size / (size**2 + penalty))) @ left.T
    return matrix


def _penalty(squares: NDArray[np.float64], parameters: float) -> float:
    """Return the penalty at which Σ d² / (d² + penalty) over the squared singular values d² is this many parameters."""

    def excess(log_penalty: float) -> float:
        return float((squares / (squares + np.exp(log_penalty))).sum() - parameters)

    lowest, highest = np.log(squares.min() * 1e-3), np.log(squares.sum() / parameters)
    return float(np.exp(brentq(excess, lowest, highest)))
