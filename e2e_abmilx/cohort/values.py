"""Values of a regression cohort: one number per case."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from e2e_abmilx.cohort.label_tables import CohortError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WITH_COMMAS = re.compile(r"[+-]?[\d.]*,[\d.,]+", re.ASCII)
_LARGEST = 1e30  # whose square, in the loss, is still far below the largest double
_RESOLVED = 1e-5  # std relative to the largest value; bags hold float32, which has 7 digits
_MOST_BINS = 10


class ValueScale(NamedTuple):
    """Mean and standard deviation (with n) of the values of the training cases."""

    mean: float
    std: float


def read_value(text: str, where: str) -> float:
    """Return the number in a cell, NaN for an empty cell; ``where`` is its file and line.

    Raises:
        CohortError: The cell holds anything else, such as a number with a unit, or with a decimal comma.
    """
    if not text:
        return math.nan
    if not _NUMBER.fullmatch(text):
        if _WITH_COMMAS.fullmatch(text):
            cure = "write a decimal point, and no separators of thousands"
        elif re.fullmatch(r"[+-]?inf(inity)?", text, re.IGNORECASE):
            cure = "values must be finite: correct it, or remove the row"
        elif re.match(r"[<>≤≥~=]?\s*[+-]?\.?\d", text):
            cure = "write the number alone, in the same unit in all rows"
        else:
            cure = "correct it, say which column holds the numbers with columns: {label: NAME}, or set target: label"
        raise CohortError(f"{where}: value {text!r} is not a number; {cure}")
    value = float(text)
    if abs(value) > _LARGEST:
        raise CohortError(
            f"{where}: value {text!r} is too large; values must lie within ±{_LARGEST:g}: use another unit"
        )
    return value


def value_scale(values: Sequence[float], table: object) -> ValueScale:
    """Return mean and standard deviation of the training values, from which a model learns.

    Args:
        values: The training cases' values, at least one.
        table: The label table, for messages.

    Raises:
        CohortError: All values are the same, or differ too little for float32.
    """
    numbers = np.array(values, dtype=np.float64)
    scale = ValueScale(float(numbers.mean()), float(numbers.std()))
    if numbers.min() == numbers.max():
        raise CohortError(
            f"{table}: all {len(numbers)} training cases have the value {numbers[0]:g}, from which nothing can be learnt;"
            " check which column is the label (columns: {label: NAME}), or the split"
        )
    if scale.std < _RESOLVED * np.abs(numbers).max():
        raise CohortError(
            f"{table}: the training values, around {scale.mean:g}, have a standard deviation of {scale.std:g}, which"
            " numbers of 7 digits (float32) cannot resolve; subtract a constant from the column"
        )
    return scale


def value_bins(values: Sequence[float], smallest_part: float) -> list[str]:
    """Return the stratum of each value: a quantile bin, so that parts of a cohort get alike distributions.

    There are as many bins as the smallest part has cases, so that it can hold one of each, and at most 10: with more,
    the parts hardly become more alike. Equal values share a bin, and unknown values (NaN) have their own.

    Args:
        values: One per case, shape ``(n,)``.
        smallest_part: Size of the smallest part as a fraction of the cohort.
    """
    known = [value for value in values if not math.isnan(value)]
    bins = max(1, min(_MOST_BINS, int(len(known) * smallest_part + 1e-9)))
    distinct, counts = np.unique(known, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / max(len(known), 1)  # of the quantiles that equal values span
    bin_of = dict(zip(distinct.tolist(), (middle * bins).astype(int).tolist(), strict=True))
    return [str(bin_of.get(value, "unknown")) for value in values]
