"""Fold numbers that a label table states itself."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e_abmilx.cohort.entries import Entry
from e2e_abmilx.cohort.label_tables import COLUMNS, CohortError
from e2e_abmilx.io.tables import plain_key

logger = logging.getLogger(__name__)


def settle_folds(entries: Sequence[Entry], titles: Mapping[str, str], table: Path) -> list[Entry]:
    """Use fold numbers as splits where the table states no other splits.

    Args:
        entries: The rows of a label table.
        titles: The table's names of its columns, by our names.
        table: The table, for the log.

    Raises:
        CohortError: A number may be a fold or a split, or a fold is not a number.
    """
    split, fold = titles.get("split", ""), titles.get("fold", "")
    if split and plain_key(split) not in map(plain_key, COLUMNS["fold"]):
        _refuse_numbers(entries, split)
    if not fold:
        _refuse_mixture([(entry.case.split, entry.where) for entry in entries], split)
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


def _refuse_numbers(entries: Sequence[Entry], title: str) -> None:
    """Refuse numbers in a column of splits."""
    number = next((entry for entry in entries if entry.case.split.isdigit()), None)
    if number:
        raise CohortError(
            f"{number.where}: column {title!r} has the number {number.case.split}, which may be a fold or a split; write"
            f" train, val and test, or if the numbers are folds say so with columns: {{fold: {title}}}"
        )


def _refuse_mixture(splits: Sequence[tuple[str, str]], title: str) -> None:
    """Refuse a column that mixes fold numbers with words."""
    number = next(((split, where) for split, where in splits if split.isdigit()), None)
    word = next(((split, where) for split, where in splits if split and not split.isdigit()), None)
    if number and word:
        raise CohortError(
            f"{number[1]} and {word[1]}: column {title!r} mixes fold numbers ({number[0]!r}) with other words"
            f" ({word[0]!r}); give each row a fold, or each row a split"
        )
