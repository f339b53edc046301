"""Which cases train, validate and test: the table's folds, or made ones."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import TCGA_PATIENT, CohortError, suggest
from e2e_abmilx.cohort.persons import Identity, group_persons

logger = logging.getLogger(__name__)

#: The three splits of a cohort.
SPLITS = ("train", "val", "test")

#: What all parts have equal shares of: each class, each label of every class of a multi-label cohort, or events and
#: censored cases.
Stratum = Literal["label", "labels", "event"]


def assign_folds(
    cases: Sequence[Case],
    *,
    fold: int,
    folds: int,
    seed: int,
    stratify_by: Stratum = "label",
) -> list[Case]:
    """Make splits: fold ``fold`` is the test split, the next one validation, the rest training.

    Where the table has a column of folds, these are used. Else folds are made: groups stay whole; each, from the
    largest down, goes to the fold where it keeps the strata most even. Made folds depend on the cases and the seed,
    not on the order of the cases.

    Args:
        cases: The cohort, without a validation or test split of its own.
        fold: Which fold to test on, from 0, or as the table numbers its own.
        folds: Number of folds, at least 3.
        seed: Order of groups of equal size.
        stratify_by: What the folds have equal shares of.

    Raises:
        CohortError: The cohort has splits of its own, there are fewer groups than folds, or the table's own folds are
            others than asked for or part a group.
    """
    own = _own_folds(cases)
    if not own and (folds < 3 or not 0 <= fold < folds):
        raise CohortError(f"fold {fold} of {folds}: there must be at least 3 folds, counted from 0")
    counts = Counter(case.split for case in cases)
    if counts["val"] or counts["test"]:
        raise CohortError(
            f"the table has splits of its own ({counts['train']} train, {counts['val']} val, {counts['test']} test), which"
            f" fold {fold} (data.fold) would replace; leave data.fold out to use them, or let them be replaced with"
            " columns: {split: null}"
        )
    if own:
        return _take_fold(cases, own, fold, folds)
    dealt = _deal_groups(cases, [1 / folds] * folds, seed, stratify_by)
    splits = {fold: "test", (fold + 1) % folds: "val"}
    return [case._replace(split=splits.get(dealt[_group(case)], "train")) for case in cases]


def _own_folds(cases: Sequence[Case]) -> list[str]:
    """Numbers of the folds that a table names, in order; none where it names none."""
    return sorted({case.split for case in cases if case.split.isdigit()}, key=int)


def _take_fold(cases: Sequence[Case], own: Sequence[str], fold: int, folds: int) -> list[Case]:
    """Splits of the table's own folds."""
    listed = ", ".join(own)
    without = next((case.id for case in cases if case.split not in own), None)
    if without is not None:
        raise CohortError(f"case {without} has no fold, others have ({listed}); give each case one")
    if str(fold) not in own:
        raise CohortError(
            f"fold {fold} is none of the table's own ({listed}); name one of these (data.fold); crossval needs folds"
            " that are numbered from 0"
        )
    if len(own) != folds or folds < 3:
        raise CohortError(
            f"the table has {len(own)} folds of its own ({listed}), and {folds} are asked for; set data.folds to"
            f" {len(own)}, which must be at least 3, or let folds be made with columns: {{fold: null}}"
        )
    refuse_leaks(cases)
    validating = own[(own.index(str(fold)) + 1) % len(own)]
    logger.info("the table's own folds: fold %d tests, fold %s validates", fold, validating)
    splits = {str(fold): "test", validating: "val"}
    return [case._replace(split=splits.get(case.split, "train")) for case in cases]


def hold_out_validation(
    cases: Sequence[Case],
    *,
    share: float = 0.125,
    seed: int,
    stratify_by: Stratum = "label",
) -> list[Case]:
    """Move a part of the training split to the validation split, as :func:`assign_folds` would.

    Args:
        cases: The cohort; cases of other splits are left as they are.
        share: Share of the training cases.
        seed: Order of groups of equal size.
        stratify_by: What both parts have equal shares of.

    Raises:
        CohortError: The share is out of range, or there are fewer than two groups.
    """
    if not 0 < share < 1:
        raise CohortError(
            f"the validation share is {share}; it is a share of the training cases, between 0 and 1"
        )
    train = [case for case in cases if case.split == "train"]
    dealt = _deal_groups(train, [1 - share, share], seed, stratify_by)
    return [
        case._replace(split="val") if case.split == "train" and dealt[_group(case)] else case
        for case in cases
    ]


def group_by_site(cases: Sequence[Case]) -> list[Case]:
    """Make the tissue source site of each TCGA case its group, so that no site is in two splits.

    Sites that share a group are one.

    Raises:
        CohortError: A case is not named by a TCGA barcode.
    """
    rows = [Identity(case.id, (), _site(case), {"": case.group}) for case in cases]
    groups = group_persons(rows, "the cohort").groups
    return [case._replace(group=groups[case.id]) for case in cases]


def check_splits(cases: Sequence[Case], *, needed: Sequence[str]) -> None:
    """Refuse a cohort whose splits cannot be used.

    Args:
        cases: The cohort.
        needed: Splits that must have a case, such as ``("train", "val")`` for a fit.

    Raises:
        CohortError: A split is unknown, a needed one is empty, or a group is in two.
    """
    if own := _own_folds(cases):
        raise CohortError(
            f"the table has no splits but numbers of folds ({', '.join(own)}); say which fold to test on (data.fold:"
            f" {own[0]}), or leave them out with columns: {{fold: null}}"
        )
    for case in cases:
        if case.split not in SPLITS:
            near = suggest(case.split, SPLITS) if case.split else ""
            raise CohortError(
                f"case {case.id}: split {case.split!r}{near} is not one of {', '.join(SPLITS)}; correct the table's"
                " split column, name a file of splits (data.splits), or let folds be made (data.fold: 0)"
            )
    refuse_leaks(cases)
    for split in needed:
        if not any(case.split == split for case in cases):
            raise CohortError(f"the {split} split has no case; give some rows the split {split!r}")


def refuse_leaks(cases: Sequence[Case]) -> None:
    """Refuse splits, or folds, that part a group: a patient, or what else belongs together.

    Raises:
        CohortError: A group is in two.
    """
    firsts: dict[str, Case] = {}
    for case in cases:
        first = firsts.setdefault(_group(case), case)
        if first.split != case.split:
            noun = "folds" if case.split.isdigit() else "splits"
            raise CohortError(
                f"group {_group(case)} is in two {noun}: case {first.id} in {first.split or 'none'}, case {case.id} in"
                f" {case.split or 'none'}; correct them, or if these cases have nothing in common, the column of patients"
                " or groups"
            )


def _deal_groups(
    cases: Sequence[Case], weights: Sequence[float], seed: int, stratify_by: Stratum
) -> dict[str, int]:
    """The part of each group, where a part's size is in proportion to its weight."""
    strata = [_strata(case, stratify_by) for case in cases]
    totals = Counter(name for names in strata for name in names)
    columns = {name: column for column, name in enumerate(sorted(totals))}
    counts: dict[str, int] = Counter(map(_group, cases))
    if len(counts) < len(weights):
        raise CohortError(
            f"{len(counts)} groups of cases cannot make {len(weights)} parts; ask for fewer, or for smaller groups"
        )
    shares: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(columns)))
    for case, names in zip(cases, strata, strict=True):
        for name in names:
            shares[_group(case)][columns[name]] += len(cases) / totals[name]
    shuffled = np.random.default_rng(seed).permutation(sorted(counts)).tolist()
    order = sorted(shuffled, key=lambda group: -counts[group])
    return dict(zip(order, _deal([shares[group] for group in order], np.array(weights)), strict=True))


def _strata(case: Case, stratify_by: Stratum) -> list[str]:
    """What a case counts for; one of several labels for each, since most of their combinations are rare."""
    if stratify_by == "labels":
        return [f"{number}: {label}" for number, label in enumerate(case.labels)]
    return [str(getattr(case, stratify_by))]


def _deal(sizes: Sequence[np.ndarray], weights: np.ndarray) -> Iterator[int]:
    """Give each size to the part that it leaves most even, and every part at least one."""
    totals = np.zeros((len(weights), len(sizes[0])))
    for left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        empty = np.flatnonzero(~totals.any(axis=1))
        allowed = empty if left <= len(empty) else np.arange(len(weights))
        # what the sum of squares, each over its weight, would grow by; among equals the emptiest
        growth = np.round((2 * totals[allowed] @ size + size @ size) / weights[allowed], 9)
        fullness = np.round(totals[allowed].sum(axis=1) / weights[allowed], 9)
        best = int(allowed[np.lexsort((allowed, fullness, growth))[0]])
        totals[best] += size
        yield best


def _group(case: Case) -> str:
    return case.group or case.id


def _site(case: Case) -> str:
    barcode = TCGA_PATIENT.match(case.id)
    if barcode is None:
        raise CohortError(
            f"case {case.id!r} is not named by a TCGA barcode (TCGA-XX-XXXX), so its site is unknown;"
            " name the table's column of sites with columns: {group: NAME}"
        )
    return barcode["site"]
