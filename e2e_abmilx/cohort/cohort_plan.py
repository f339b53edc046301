"""All settings of a cohort, and the steps from the label table to numbered cases."""

import logging
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from e2e_abmilx.cohort.cases import TargetKind, read_cohort
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.matching import require_slides
from e2e_abmilx.cohort.spellings import spell_classes
from e2e_abmilx.cohort.split_files import read_splits
from e2e_abmilx.cohort.splits import Stratum, assign_folds, check_splits, group_by_site, hold_out_validation
from e2e_abmilx.cohort.targets import NumberedTargets, encode_labels, encode_multi_labels, encode_times, encode_values
from e2e_abmilx.cohort.time_bins import BinSource

logger = logging.getLogger(__name__)

# By stage: the split of all cases of a table without splits, and a word for the log.
_EVALUATED = {"validate": ("val", "validated"), "test": ("test", "tested"), "predict": ("", "predicted")}
_STRATA: dict[TargetKind, Stratum] = {
    "label": "label",
    "multi_label": "labels",
    "survival": "event",
    "regression": "value",
}


@dataclass
class CohortPlan:
    """How a cohort is read, split, matched with slides and numbered.

    Args:
        labels: Label table (CSV); without one, every slide is a case that can only be predicted.
        columns: The table's names for ``slide``, ``case``, ``patient``, ``label``, ``time``, ``days``, ``event``,
            ``censorship``, ``split``, ``fold`` and ``group``, where they differ from the usual names; null for a column
            that must not be read.
        slide_table: A second table that lists the slides of each case, where the label table has one row per case.
        target: ``"label"``: one class per case; ``"multi_label"``: several labels per case, with one column per class;
            ``"survival"``: time and event; ``"regression"``: a number per case, in the label column.
        classes: The classes in order, in quotes where YAML would read something else (``"no"``); by default the
            classes of the table, sorted. For ``"multi_label"``, the columns that hold 1, 0 or, where unknown, nothing.
        time_bins: Number of time bins of a survival model; their edges are quantiles of the event times.
        bins: Cases whose events decide the bins: ``"train"``, or all of the ``"cohort"``, as the authors do.
        splits: A file of splits, or a folder with one file per fold, used instead of the table's splits.
        fold: The fold to test on: of ``splits``, of the table's fold column, or of ``folds`` made folds.
        folds: Number of folds, where ``fold`` is given and ``splits`` is not.
        by_site: Keep the cases of each TCGA site, which is part of the barcode, in one split.
        val_fraction: Fraction of the training cases to hold out for validation, where no split is for validation.
        split_seed: Seed of made folds and of held-out validation cases. It is separate from ``seed``, so that runs
            with different weights and draws share their splits.
        skip_missing: Leave out cases whose slides are missing, instead of stopping.
        select_on_test: Use the validation and test cases together for both validation and testing: the authors'
            protocol, whose results are too good. Only for comparisons with their results.

    Raises:
        ValueError: The target is ``"multi_label"``, and the classes are absent or not distinct; or it is
            ``"regression"``, and there are classes.
        CohortError: YAML has read a class as something other than text or a number.
    """

    labels: Path | None = None
    _: KW_ONLY
    columns: dict[str, str | None] | None = None
    slide_table: Path | None = None
    target: TargetKind = "label"
    classes: list[str | int | float | bool | None] | None = None
    time_bins: int = 4
    bins: BinSource = "train"
    splits: Path | None = None
    fold: int | None = None
    folds: int = 5
    by_site: bool = False
    val_fraction: float = 0.125
    split_seed: int = 0
    skip_missing: bool = False
    select_on_test: bool = False

    def __post_init__(self) -> None:
        self.class_names = None if self.classes is None else spell_classes(self.classes)
        names = self.class_names or []
        if self.target == "multi_label" and (not names or len(set(names)) < len(names)):
            raise ValueError(
                f"classes is {names} for target multi_label; name the columns of the table that hold 1 or 0, each once,"
                " such as data.classes: [ER, PR]"
            )

        if self.target == "regression" and self.class_names is not None:
            raise ValueError(
                f"classes is {names} for target regression, which has none; leave data.classes out, or set data.target"
            )

    def read(self, slides: Sequence[str], folder: Path | str, stage: str) -> list[Case]:
        """Read the cases that have all of their slides, with their splits.

        Args:
            slides: Names of the slides that exist.
            folder: Their folder, for messages.
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            CohortError: The table, its splits or its slides cannot be used.
        """
        if self.labels is None:
            if stage != "predict":
                raise CohortError("data.labels is not given; without a label table slides can only be predicted")
            return [Case(name, (name,)) for name in slides]
        split = self.read_table(stage)
        matched = require_slides(split, slides, folder, skip_missing=self.skip_missing)
        if stage == "fit":
            check_splits(matched, needed=("train",) if self.select_on_test else ("train", "val"))
        return matched

    def read_table(self, stage: str) -> list[Case]:
        """Read the cases of the label table with their splits, whether or not their slides exist; otherwise as `read`."""
        if self.labels is None:
            raise CohortError("data.labels is not given; name the label table of the cohort")
        cases = read_cohort(
            Path(self.labels),
            columns=self.columns,
            label_columns=self.class_names or () if self.target == "multi_label" else (),
            slide_table=self.slide_table,
            target=self.target,
        )
        return self.split(cases, stage)

    def split(self, cases: Sequence[Case], stage: str) -> list[Case]:
        """Give each case its split: from a file, from folds, or as the table states it.

        Args:
            cases: All cases, including those without slides: a missing slide must not change the split of others.
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``. Only a fit needs splits; in the other
                stages all cases of a table without splits are evaluated.

        Raises:
            CohortError: The splits cannot be used, or divide a patient or another group.
        """
        stratum = _STRATA[self.target]
        split = group_by_site(cases) if self.by_site else list(cases)
        if self.splits is not None:
            split = read_splits(split, Path(self.splits), fold=self.fold)
        elif self.fold is not None:
            split = assign_folds(split, fold=self.fold, folds=self.folds, seed=self.split_seed, stratify_by=stratum)
        elif stage != "fit" and _is_unsplit(split, stage):
            name, done = _EVALUATED[stage]
            logger.info("the table has no splits: all of its %d cases are %s", len(split), done)
            return [case._replace(split=name) for case in split]
        check_splits(split, needed=())
        names = {case.split for case in split}
        if not self.select_on_test and "train" in names and "val" not in names:
            logger.info("no validation split is given: %g of the training cases are held out", self.val_fraction)
            split = hold_out_validation(split, fraction=self.val_fraction, seed=self.split_seed, stratify_by=stratum)
        return split

    def number(
        self, cases: Sequence[Case], stage: str = "fit", known: NumberedTargets | None = None
    ) -> NumberedTargets:
        """Number the targets of the cases; without a label table, all are -1 or, for regression, NaN.

        Args:
            cases: The cases.
            stage: As in :meth:`read`; in prediction the target of a case may be unknown, and is then -1, or NaN for regression.
            known: Classes and edges of time bins of a trained model, which replace those of the table.

        Raises:
            CohortError: A target is missing or cannot be used.
        """
        fixed = known or NumberedTargets([], tuple(self.class_names or ()) if self.labels else ())
        with_target = [case for case in cases if self.labels is not None and self._has_target(case)]
        if self.labels is not None and (stage != "predict" or len(with_target) == len(cases)):
            return self._number(cases, known)
        if self.labels is not None:
            logger.info("%d of %d cases have no target", len(cases) - len(with_target), len(cases))
        numbered = self._number(with_target, known) if with_target else fixed
        number_of = dict(zip((case.id for case in with_target), numbered.numbers, strict=True))
        unknown = self._unknown(numbered.classes if self.labels else ())
        return numbered._replace(numbers=[number_of.get(case.id, unknown) for case in cases])

    def _number(self, cases: Sequence[Case], known: NumberedTargets | None) -> NumberedTargets:
        if self.target == "survival":
            # the first release did not record the edges of its bins
            edges = None if known is None or len(known.classes) > len(known.edges) + 1 else known.edges
            return encode_times(cases, self.time_bins, self.bins, table=self.labels, edges=edges)
        if self.target == "multi_label":
            names = tuple(self.class_names or ())
            return NumberedTargets(encode_multi_labels(cases, names, trained=known is not None), names)
        if self.target == "regression":
            return NumberedTargets(encode_values(cases, table=self.labels), ())
        return NumberedTargets(*encode_labels(cases, self.class_names if known is None else known.classes))

    def _unknown(self, classes: Sequence[str]) -> int | float | tuple[int, ...]:
        if self.target == "regression":
            return math.nan
        return (-1,) * len(classes) if self.target == "multi_label" and classes else -1

    def _has_target(self, case: Case) -> bool:
        if self.target == "survival":
            return not math.isnan(case.time)
        if self.target == "regression":
            return not math.isnan(case.value)
        return max(case.labels, default=-1) >= 0 if self.target == "multi_label" else bool(case.label)

    def join_held_out(self, cases: Sequence[Case]) -> list[Case]:
        """Move validation cases into the test split, where checkpoints are selected on test cases."""
        if not self.select_on_test:
            return list(cases)
        logger.warning(
            "select_on_test: checkpoints are chosen on the test cases, so the test result measures that choice and not"
            " how the model performs on new cases; do not report it as a test"
        )
        return [case if case.split == "train" else case._replace(split="test") for case in cases]


def _is_unsplit(cases: Sequence[Case], stage: str) -> bool:
    """Return whether a table has no splits; fold numbers count as splits except in prediction."""
    return not any(case.split and not (stage == "predict" and case.split.isdigit()) for case in cases)
