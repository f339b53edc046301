"""Faithfulness of heatmaps: how a prediction changes while patches are removed or added in the order of a map.

Letters: N patches of a case, P = 16 points of a curve, M subsets of the patches.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid

from e2e_abmilx.errors import InputError

#: Percentage of the patches that each point of an insertion curve has added; dense where sparse maps decide.
INSERTED = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 100)

#: Percentage of the patches that each point of a deletion curve has removed: 0, 1, 2, 5, …, 99; never all of them.
DELETED = tuple(100 - inserted for inserted in reversed(INSERTED))

#: Number of random orders whose mean is the random map.
RANDOM_ORDERS = 5

#: The predictions from subsets of k patches each, shape ``(M,)``, from the numbers of the patches, shape ``(M, k)``.
Value = Callable[[NDArray[np.intp]], ArrayLike]


class Curves(NamedTuple):
    """The predictions for a case while patches are removed or added in the order of a map, the highest first.

    Attributes:
        deletion: Prediction after :data:`DELETED` per cent of the patches were removed, shape ``(P,)``.
        insertion: Prediction from the first :data:`INSERTED` per cent of the patches, shape ``(P,)``.
    """

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]

    @property
    def deletion_area(self) -> float:
        """Mean height of the deletion curve, by the trapezoidal rule; small for a faithful map."""
        return _mean_height(self.deletion, DELETED)

    @property
    def insertion_area(self) -> float:
        """Mean height of the insertion curve, by the trapezoidal rule; large for a faithful map."""
        return _mean_height(self.insertion, INSERTED)


def removal_curves(value: Value, maps: Mapping[str, ArrayLike], *, seed: int | list[int] = 0) -> dict[str, Curves]:
    """Return the deletion and insertion curves of the maps of a case, and those of a ``random`` map.

    Deletion and insertion are those of RISE (arXiv:1806.07421), with patches instead of pixels as in xMIL
    (arXiv:2406.04280). A point keeps a fraction of the patches, rounded to a number and at least one, because no
    model predicts from an empty bag. Patches with equal values are in random order: a constant map is a random one.

    The random map is the mean of 5 random orders. Removing patches in one order and adding them in the reverse one
    visits the same bags, so that its deletion curve is its insertion curve reversed, and both areas are equal.

    At most :func:`most_evaluations` subsets are predicted from.

    Args:
        value: The prediction that is watched. It is called with subsets of one size at a time, each in ascending order.
        maps: Importance of each patch, shape ``(N,)``, by the map's name.
        seed: Of the random orders and of ties.

    Raises:
        InputError: There is no map, or maps have no patches, different numbers of them, or values that are not finite.
    """
    arrays = {name: np.asarray(importance, np.float64) for name, importance in maps.items()}
    count = _count_patches(arrays)
    rng = np.random.default_rng(seed)
    ranked = [_highest_first(importance, rng) for importance in arrays.values()]
    drawn = [rng.permutation(count) for _ in range(RANDOM_ORDERS)]
    # a deletion keeps the first patches of the reversed order
    rows = _keep_first(value, np.array([*ranked, *(order[::-1] for order in ranked), *drawn]))
    added, left, random = np.split(rows, [len(ranked), 2 * len(ranked)])
    curves = {name: Curves(left[row, ::-1], added[row]) for row, name in enumerate(arrays)}
    insertion = random.mean(axis=0)
    return {**curves, "random": Curves(insertion[::-1], insertion)}


def most_evaluations(maps: int) -> int:
    """Return from how many subsets of the patches :func:`removal_curves` predicts at most, for a number of maps."""
    return 1 + (2 * maps + RANDOM_ORDERS) * (len(INSERTED) - 1)


def kept_patches(count: int) -> list[int]:
    """Return how many of N = ``count`` patches are kept at each of the :data:`INSERTED` percentages."""
    return [max(1, (percent * count + 50) // 100) for percent in INSERTED]


def _count_patches(maps: Mapping[str, NDArray[np.float64]]) -> int:
    shapes = {name: importance.shape for name, importance in maps.items()}
    first = next(iter(shapes.values()), ())
    if len(first) != 1 or not first[0] or set(shapes.values()) != {first}:
        raise InputError(f"the maps have shapes {shapes}; give one value for each patch of the case, shape (N,), N ≥ 1")
    for name, importance in maps.items():
        if not np.isfinite(importance).all():
            raise InputError(f"the map {name} has values that are not finite, which have no rank; give finite ones")
    return int(first[0])


def _highest_first(importance: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the numbers of the patches by decreasing importance, with ties in random order."""
    shuffled = rng.permutation(len(importance))
    return shuffled[np.argsort(-importance[shuffled], kind="stable")]


def _keep_first(value: Value, orders: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the predictions from the first patches of M orders of all, for each number of them, shape ``(M, P)``."""
    rows, count = orders.shape
    known = {count: np.full(rows, np.asarray(value(np.arange(count)[None]), np.float64))}
    counts = kept_patches(count)
    for kept in counts:
        if kept not in known:
            known[kept] = np.asarray(value(np.sort(orders[:, :kept], axis=1)), np.float64)
    return np.stack([known[kept] for kept in counts], axis=1)


def _mean_height(curve: NDArray[np.float64], percent: tuple[int, ...]) -> float:
    return float(trapezoid(curve, percent) / (percent[-1] - percent[0]))
