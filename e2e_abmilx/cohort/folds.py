"""Fold numbers that a label table states itself."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e_abmilx.cohort.entries import Entry
from e2e_abmilx.cohort.label_tables import COLUMNS, CohortError
from e2e_abmilx.io.tables import plain_key

logger = logging.getLogger(__name__)


def settle_folds(entries: Sequence[Entry], titles: Mapping[str, str], table: Path) -> list[Entry]:
    """Use fold numbers as splits where a label table states no other splits; ``titles`` names its columns by our names.

    Raises:
        CohortError: A number may be a fold or a split, or a fold is not a number.
    """
    split, fold = titles.get("split", ""), titles.get("fold", "")
    number = next((entry for entry in entries if entry.case.split.isdigit()), None)
    if number and plain_key(split) not in map(plain_key, COLUMNS["fold"]):
        raise CohortError(
            f"{number.where}: column {split!r} has the number {number.case.split}, which may be a fold or a split;"
            f" write train, val and test, or if the numbers are folds say so with columns: {{fold: {split}}}"
        )
    if not fold:
        word = next((entry for entry in entries if entry.case.split and not entry.case.split.isdigit()), None)
        if number and word:
            raise CohortError(
                f"{number.where} and {word.where}: column {split!r} mixes fold numbers ({number.case.split!r}) with"
                f" other words ({word.case.split!r}); give each row a fold, or each row a split"
            )
        return list(entries)
    if {entry.case.split for entry in entries} - {"", "train"}:
        logger.info("%s: column %r is not read, since %r states the splits", table, fold, split)
        return list(entries)
    other = next((entry for entry in entries if entry.fold and not entry.fold.isdigit()), None)
    if other:
        raise CohortError(
            f"{other.where}: fold {other.fold!r} in column {fold!r} is not a number; number the folds from 0"
        )
    return [entry._replace(case=entry.case._replace(split=entry.fold)) for entry in entries]
