"""The training, validation and test split: from the table's own folds, or from folds made here."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import TCGA_PATIENT, CohortError, suggest
from e2e_abmilx.cohort.patients import Identity, group_patients
from e2e_abmilx.cohort.values import value_bins

logger = logging.getLogger(__name__)

#: The three splits of a cohort.
SPLITS = ("train", "val", "test")

#: What made splits are stratified by: the class, each label of a multi-label cohort, events against censored cases, or
#: quantile bins of a number.
Stratum = Literal["label", "labels", "event", "value"]


def assign_folds(
    cases: Sequence[Case], *, fold: int, folds: int, seed: int, stratify_by: Stratum = "label"
) -> list[Case]:
    """Split a cohort by folds: ``fold`` is the test split, the following fold validation, all others training.

    If the table has a fold column, its folds are used. Otherwise folds are made: each group, from the largest to the
    smallest, is assigned as a whole to the fold where it keeps the strata most balanced. Made folds depend on the
    cases and the seed, but not on the order of the cases.

    Args:
        cases: The cohort, without a validation or test split of its own.
        fold: The fold to test on, from 0, or as the table numbers its own folds.
        folds: Number of folds, at least 3.
        seed: Seed of the order in which groups of equal size are assigned.
        stratify_by: Stratum that the folds hold in equal fractions.

    Raises:
        CohortError: The cohort has splits of its own, there are fewer groups than folds, or the table's own folds
            differ from the request or divide a group.
    """
    own = _own_folds(cases)
    if not own and (folds < 3 or not 0 <= fold < folds):
        raise CohortError(f"fold {fold} of {folds}: there must be at least 3 folds, counted from 0")
    counts = Counter(case.split for case in cases)
    if counts["val"] or counts["test"]:
        raise CohortError(
            f"the table has splits of its own ({counts['train']} train, {counts['val']} val, {counts['test']} test), which"
            f" fold {fold} (data.fold) would replace; omit data.fold to use them, or replace them with columns:"
            " {split: null}"
        )
    if own:
        return _take_fold(cases, own, fold, folds)
    part_of = _assign_groups(cases, [1 / folds] * folds, seed, stratify_by)
    splits = {fold: "test", (fold + 1) % folds: "val"}
    return [case._replace(split=splits.get(part_of[_group(case)], "train")) for case in cases]


def _own_folds(cases: Sequence[Case]) -> list[str]:
    """Return the fold numbers that a table states, in order."""
    return sorted({case.split for case in cases if case.split.isdigit()}, key=int)


def _take_fold(cases: Sequence[Case], own: Sequence[str], fold: int, folds: int) -> list[Case]:
    """Split a cohort by the table's own folds."""
    listed = ", ".join(own)
    without = next((case.id for case in cases if case.split not in own), None)
    if without is not None:
        raise CohortError(f"case {without} has no fold, but others have ({listed}); give each case one")
    if str(fold) not in own:
        raise CohortError(
            f"fold {fold} is not one of the table's own ({listed}); choose one of these (data.fold); crossval needs folds"
            " that are numbered from 0"
        )
    if len(own) != folds or folds < 3:
        raise CohortError(
            f"the table has {len(own)} folds of its own ({listed}), but {folds} are asked for; set data.folds to"
            f" {len(own)}, which must be at least 3, or have folds made with columns: {{fold: null}}"
        )
    refuse_leaks(cases)
    validation = own[(own.index(str(fold)) + 1) % len(own)]
    logger.info("the table's own folds: fold %d is the test split, fold %s validation", fold, validation)
    splits = {str(fold): "test", validation: "val"}
    return [case._replace(split=splits.get(case.split, "train")) for case in cases]


def hold_out_validation(
    cases: Sequence[Case], *, fraction: float = 0.125, seed: int, stratify_by: Stratum = "label"
) -> list[Case]:
    """Move a fraction of the training split to the validation split, as :func:`assign_folds` assigns groups.

    Cases of other splits stay where they are; ``seed`` and ``stratify_by`` are those of :func:`assign_folds`.

    Raises:
        CohortError: The fraction is out of range, or there are fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise CohortError(
            f"the validation fraction is {fraction}; it is a fraction of the training cases, between 0 and 1"
        )
    train = [case for case in cases if case.split == "train"]
    held_out = _assign_groups(train, [1 - fraction, fraction], seed, stratify_by)
    return [case._replace(split="val") if case.split == "train" and held_out[_group(case)] else case for case in cases]


def group_by_site(cases: Sequence[Case]) -> list[Case]:
    """Make the tissue source site of each TCGA case its group, so that no site is divided between splits.

    Sites that share a group become one group.

    Raises:
        CohortError: The name of a case is not a TCGA barcode.
    """
    rows = []
    for case in cases:
        barcode = TCGA_PATIENT.match(case.id)
        if barcode is None:
            raise CohortError(
                f"case {case.id!r} is not named by a TCGA barcode (TCGA-XX-XXXX), so its site is unknown;"
                " name the table's column of sites with columns: {group: NAME}"
            )
        rows.append(Identity(case.id, (), barcode["site"], {"": case.group}))
    groups = group_patients(rows, "the cohort").groups
    return [case._replace(group=groups[case.id]) for case in cases]


def check_splits(cases: Sequence[Case], *, needed: Sequence[str]) -> None:
    """Refuse a cohort whose splits cannot be used.

    The ``needed`` splits must not be empty; for a fit they are ``("train", "val")``.

    Raises:
        CohortError: A split is unknown, a needed split is empty, or a group is divided between splits.
    """
    if own := _own_folds(cases):
        raise CohortError(
            f"the table has no splits but fold numbers ({', '.join(own)}); say which fold to test on (data.fold:"
            f" {own[0]}), or ignore them with columns: {{fold: null}}"
        )
    for case in cases:
        if case.split not in SPLITS:
            near = suggest(case.split, SPLITS) if case.split else ""
            raise CohortError(
                f"case {case.id}: split {case.split!r}{near} is not one of {', '.join(SPLITS)}; correct the table's"
                " split column, name a file of splits (data.splits), or have folds made (data.fold: 0)"
            )
    refuse_leaks(cases)
    for split in needed:
        if not any(case.split == split for case in cases):
            raise CohortError(f"the {split} split has no case; give some rows the split {split!r}")


def refuse_leaks(cases: Sequence[Case]) -> None:
    """Refuse splits or folds that divide a group, such as the cases of one patient.

    Raises:
        CohortError: A group is in two splits or folds.
    """
    firsts: dict[str, Case] = {}
    for case in cases:
        first = firsts.setdefault(_group(case), case)
        if first.split != case.split:
            noun = "folds" if case.split.isdigit() else "splits"
            raise CohortError(
                f"group {_group(case)} is in two {noun}: case {first.id} in {first.split or 'none'}, case {case.id} in"
                f" {case.split or 'none'}; correct the {noun}, or if these cases have nothing in common, the column of"
                " patients or groups"
            )


def _assign_groups(cases: Sequence[Case], weights: Sequence[float], seed: int, stratify_by: Stratum) -> dict[str, int]:
    """Return the part that each group is assigned to; sizes of the parts are proportional to their weights."""
    if stratify_by == "labels":  # each label is a stratum, since most combinations of labels are rare
        strata = [[f"{number}: {label}" for number, label in enumerate(case.labels)] for case in cases]
    elif stratify_by == "value":
        strata = [[name] for name in value_bins([case.value for case in cases], min(weights))]
    else:
        strata = [[str(getattr(case, stratify_by))] for case in cases]
    totals = Counter(name for names in strata for name in names)
    columns = {name: column for column, name in enumerate(sorted(totals))}
    counts = Counter(map(_group, cases))
    if len(counts) < len(weights):
        raise CohortError(
            f"{len(counts)} groups of cases cannot make {len(weights)} parts; ask for fewer parts, or use smaller groups"
        )
    sizes: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(columns)))
    for case, names in zip(cases, strata, strict=True):
        for name in names:
            sizes[_group(case)][columns[name]] += len(cases) / totals[name]
    shuffled = np.random.default_rng(seed).permutation(sorted(counts)).tolist()
    order = sorted(shuffled, key=lambda group: -counts[group])
    return dict(zip(order, _balance([sizes[group] for group in order], np.array(weights)), strict=True))


def _balance(sizes: Sequence[np.ndarray], weights: np.ndarray) -> Iterator[int]:
    """Yield the part of each size: the one that keeps all parts most balanced; every part gets at least one."""
    totals = np.zeros((len(weights), len(sizes[0])))
    for remaining, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        empty = np.flatnonzero(~totals.any(axis=1))
        allowed = empty if remaining <= len(empty) else np.arange(len(weights))
        # least growth of the sum of squares, each divided by the part's weight; ties go to the emptiest part
        growth = np.round((2 * totals[allowed] @ size + size @ size) / weights[allowed], 9)
        fullness = np.round(totals[allowed].sum(axis=1) / weights[allowed], 9)
        best = int(allowed[np.lexsort((allowed, fullness, growth))[0]])
        totals[best] += size
        yield best


def _group(case: Case) -> str:
    return case.group or case.id
