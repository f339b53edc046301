"""Columns of a table of predictions: one row a slide or a case, equally long, without NaN."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError


def aligned(**columns: ArrayLike) -> list[NDArray[Any]]:
    """Return columns as arrays, one row for each of n predictions.

    Args:
        columns: Each of shape ``(n, …)``; its name stands in the errors.

    Raises:
        InputError: If there is no row, a column is longer than another, or a column holds NaN.
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns have different lengths, {lengths}; give one row a prediction to each")
    if not all(lengths.values()):
        raise InputError(f"no rows in {', '.join(arrays)}; give at least one prediction")
    for name, array in arrays.items():
        missing = int(np.isnan(array).reshape(len(array), -1).any(axis=1).sum())
        if missing:
            raise InputError(
                f"{missing} of {len(array)} rows of '{name}' are NaN; leave those rows out of all columns"
            )
    return list(arrays.values())


def check_labels(label: NDArray[Any], num_classes: int) -> None:
    """Refuse labels that are no class.

    Args:
        label: Class of each row, shape ``(n,)``.
        num_classes: K.

    Raises:
        InputError: If a label lies outside 0 … K-1, such as -1 for an unknown one.
    """
    strangers = np.setdiff1d(label, np.arange(num_classes))
    if len(strangers):
        raise InputError(
            f"{strangers[0]} is not a class: labels are 0 … {num_classes - 1}; leave rows of unknown label out"
        )
