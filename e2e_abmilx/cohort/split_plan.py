"""The source of a cohort's splits: the table, a file, or folds made from a seed."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.split_files import read_splits
from e2e_abmilx.cohort.splits import Stratum, assign_folds, check_splits, group_by_site, hold_out_validation

logger = logging.getLogger(__name__)

# By stage: the split of all cases of a table without splits, and a word for the log.
_EVALUATED = {"validate": ("val", "validated"), "test": ("test", "tested"), "predict": ("", "predicted")}


class SplitPlan(NamedTuple):
    """Where the splits of a cohort come from.

    Attributes:
        file: A file of splits, or a folder with one file per fold, used instead of the table's splits.
        fold: The fold to test on: of ``file``, of the table's own folds, or of made folds.
        folds: Number of folds, where ``fold`` is given and ``file`` is not.
        by_site: Keep the cases of each TCGA site in one split.
        val_fraction: Fraction of the training cases to hold out if no split is for validation; None for none.
        seed: Seed of made folds and held-out validation cases.
        stratify_by: Stratum that made splits hold in equal fractions.
    """

    file: Path | None
    fold: int | None
    folds: int
    by_site: bool
    val_fraction: float | None
    seed: int
    stratify_by: Stratum

    def settle(self, cases: Sequence[Case], stage: str) -> list[Case]:
        """Give each case its split.

        Args:
            cases: All cases, including those without slides: a missing slide must not change the split of others.
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``. Only a fit needs splits; in the other
                stages all cases of a table without splits are evaluated.

        Raises:
            CohortError: The splits cannot be used, or divide a patient or another group.
        """
        settled = group_by_site(cases) if self.by_site else list(cases)
        if self.file is not None:
            settled = read_splits(settled, Path(self.file), fold=self.fold)
        elif self.fold is not None:
            settled = assign_folds(
                settled, fold=self.fold, folds=self.folds, seed=self.seed, stratify_by=self.stratify_by
            )
        elif stage != "fit" and _is_unsplit(settled, stage):
            split, done = _EVALUATED[stage]
            logger.info("the table has no splits: all of its %d cases are %s", len(settled), done)
            return [case._replace(split=split) for case in settled]
        check_splits(settled, needed=())
        splits = {case.split for case in settled}
        if self.val_fraction is not None and "train" in splits and "val" not in splits:
            logger.info(
                "no validation split is given: %g of the training cases are held out", self.val_fraction
            )
            settled = hold_out_validation(
                settled, fraction=self.val_fraction, seed=self.seed, stratify_by=self.stratify_by
            )
        return settled


def _is_unsplit(cases: Sequence[Case], stage: str) -> bool:
    """Return whether a table has no splits; fold numbers count as splits except in prediction."""
    return not any(case.split and not (stage == "predict" and case.split.isdigit()) for case in cases)
