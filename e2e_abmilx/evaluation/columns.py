"""Checks on columns of predictions: one row per slide or case, equal lengths, no NaN."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError


def aligned(**columns: ArrayLike) -> list[NDArray[Any]]:
    """Return columns as arrays, with one row per prediction.

    Args:
        columns: Each of shape ``(n, …)``; error messages use its name.

    Raises:
        InputError: If the columns have no rows, differ in length, or hold NaN.
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns have different lengths, {lengths}; give each one row per prediction")
    if not all(lengths.values()):
        raise InputError(f"no rows in {', '.join(arrays)}; give at least one prediction")
    for name, array in arrays.items():
        missing = int(np.isnan(array).reshape(len(array), -1).any(axis=1).sum())
        if missing:
            raise InputError(f"{missing} of {len(array)} rows of '{name}' are NaN; leave those rows out of all columns")
    return list(arrays.values())


def check_labels(label: NDArray[Any], num_classes: int) -> None:
    """Refuse labels that are not class numbers.

    Args:
        label: Class of each row, shape ``(n,)``.
        num_classes: K.

    Raises:
        InputError: If a label lies outside 0 … K-1, such as -1 for an unknown label.
    """
    unexpected = np.setdiff1d(label, np.arange(num_classes))
    if len(unexpected):
        raise InputError(
            f"{unexpected[0]} is not a class: labels are 0 … {num_classes - 1}; leave out rows of unknown label"
        )
