"""How the splits of a cohort come about."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.split_files import read_splits
from e2e_abmilx.cohort.splits import Stratum, assign_folds, check_splits, group_by_site, hold_out_validation

logger = logging.getLogger(__name__)

# The split of every case of a table without splits, which is only evaluated, and what is done with it.
_EVALUATED = {"validate": ("val", "validated"), "test": ("test", "tested"), "predict": ("", "predicted")}


class SplitPlan(NamedTuple):
    """Where the splits of a cohort come from.

    Attributes:
        file: A file of splits, or a folder of one file a fold, instead of the table's splits.
        fold: Which fold to test on: of ``file``, of the table's own, or of made ones.
        folds: Number of folds, where ``fold`` is given and ``file`` is not.
        by_site: Never part the cases of a site of TCGA.
        val_fraction: Share of the training cases that validate, where no split says which do; None for none.
        seed: Of made folds.
        stratify_by: What made splits have equal shares of.
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
            cases: All cases, those without slides too: a missing slide must not move the others.
            stage: What the cohort is for: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``. Other than for a
                fit a table needs no splits: all of its cases are evaluated.

        Raises:
            CohortError: The splits cannot be used, or part a patient or another group.
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
            logger.info("no validation cases are given: %g of the training cases validate", self.val_fraction)
            settled = hold_out_validation(
                settled, share=self.val_fraction, seed=self.seed, stratify_by=self.stratify_by
            )
        return settled


def _is_unsplit(cases: Sequence[Case], stage: str) -> bool:
    """Whether a table has no splits; folds are none to a prediction, and ask for one of them otherwise."""
    return not any(case.split and not (stage == "predict" and case.split.isdigit()) for case in cases)
