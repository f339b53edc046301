import math

import numpy as np
import pytest

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.columns import aligned, check_labels


def test_columns_become_arrays_in_the_given_order() -> None:
    table, label = aligned(table=[[1.0, 2.0], [3.0, 4.0]], label=(0, 1))
    assert table.shape == (2, 2)
    np.testing.assert_array_equal(label, [0, 1])


def test_rows_with_any_nan_are_counted() -> None:
    table = [[1.0, math.nan], [math.nan, math.nan], [1.0, 2.0]]
    with pytest.raises(InputError, match="2 of 3 rows of 'table' are NaN; leave those rows out of all columns"):
        aligned(label=[0, 1, 0], table=table)


def test_lengths_must_agree_and_not_be_0() -> None:
    with pytest.raises(InputError, match=r"different lengths, {'risk': 1, 'time': 2}; give each one row"):
        aligned(risk=[1.0], time=[1.0, 2.0])
    with pytest.raises(InputError, match="no rows in risk, time; give at least one"):
        aligned(risk=[], time=[])


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_outside_the_classes_are_refused(label: int) -> None:
    check_labels(np.array([0, 1, 2]), 3)
    with pytest.raises(InputError, match=f"{label} is not a class: labels are 0 … 2; leave out rows"):
        check_labels(np.array([0, label]), 3)
