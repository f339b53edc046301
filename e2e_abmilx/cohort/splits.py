"""Which cases train, validate and test: from files, or made."""

import csv
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from e2e_abmilx.cohort.cases import Case
from e2e_abmilx.cohort.label_tables import (
    TCGA_PATIENT,
    CohortError,
    open_table,
    recognise,
    rows_of,
    slide_name,
    suggest,
)

logger = logging.getLogger(__name__)

#: The three splits of a cohort.
SPLITS = ("train", "val", "test")

#: What all parts have equal shares of: each class, each label of every class of a multi-label cohort, or events and
#: censored cases.
Stratum = Literal["label", "labels", "event"]

_FOLD_FILES = ("splits_{}.csv", "fold_{}.csv")


def assign_folds(
    cases: Sequence[Case],
    *,
    fold: int,
    folds: int,
    seed: int,
    stratify_by: Stratum = "label",
) -> list[Case]:
    """Make splits: fold ``fold`` is the test split, the next one validation, the rest training.

    Groups stay whole; each, from the largest down, goes to the fold where it keeps the strata most even. The folds
    depend on the cases and the seed, not on the order of the cases.

    Args:
        cases: The cohort; its own splits are replaced.
        fold: Which fold to test on, from 0.
        folds: Number of folds, at least 3.
        seed: Order of groups of equal size.
        stratify_by: What the folds have equal shares of.

    Raises:
        CohortError: There are fewer groups than folds.
    """
    if folds < 3 or not 0 <= fold < folds:
        raise CohortError(f"fold {fold} of {folds}: there must be at least 3 folds, counted from 0")
    dealt = _deal_groups(cases, [1 / folds] * folds, seed, stratify_by)
    splits = {fold: "test", (fold + 1) % folds: "val"}
    return [case._replace(split=splits.get(dealt[_group(case)], "train")) for case in cases]


def carve_validation(
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

    Raises:
        CohortError: A case is not named by a TCGA barcode.
    """
    return [case._replace(group=_site(case)) for case in cases]


def read_splits(cases: Sequence[Case], path: Path, *, fold: int | None = None) -> list[Case]:
    """Give the cases of a cohort the splits that a file names.

    The file is a CSV with a column ``split`` beside one of cases or slides, as :func:`write_splits` writes it and
    the authors' fold tables are; or one with the columns ``train``, ``val`` and ``test``, which list cases or
    slides, as CLAM and its relatives write it.

    Args:
        cases: The cohort; its own splits are replaced.
        path: The file, or a folder of ``splits_<fold>.csv`` or ``fold_<fold>.csv``.
        fold: Which file of the folder.

    Returns:
        The cases that the file names; the others are left out, and the log says how many.

    Raises:
        CohortError: The file is absent or no such file, names something unknown, or a case is in two splits.
    """
    file = _fold_file(path, fold)
    index = {slide: number for number, case in enumerate(cases) for slide in case.slides}
    index |= {case.id: number for number, case in enumerate(cases)}
    found: dict[int, tuple[str, str]] = {}
    for where, name, split in _listed(file):
        number = index.get(name, index.get(slide_name(name)))
        if number is None:
            raise CohortError(
                f"{where}: the label table has no case or slide {name!r}{suggest(name, index)};"
                " correct the file or the table"
            )
        first_where, first = found.setdefault(number, (where, split))
        if first != split:
            raise CohortError(
                f"{first_where} and :{where.rpartition(':')[2]}: case {cases[number].id} is in two splits"
                f" ({first!r} and {split!r}); a case and all its slides belong to one"
            )
    left_out = [case.id for number, case in enumerate(cases) if number not in found]
    if left_out:
        logger.warning(
            "%s: %d cases have no split and are left out: %s", file, len(left_out), ", ".join(left_out)
        )
    return [case._replace(split=found[number][1]) for number, case in enumerate(cases) if number in found]


def write_splits(cases: Sequence[Case], path: Path) -> None:
    """Write a CSV ``case,split`` that :func:`read_splits` reads; with ``time,event`` where they are known."""
    survival = any(math.isfinite(case.time) for case in cases)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "split", *(["time", "event"] if survival else [])])
        for case in cases:
            writer.writerow([case.id, case.split, *([case.time, case.event] if survival else [])])


def check_splits(cases: Sequence[Case], *, needed: Sequence[str]) -> None:
    """Refuse a cohort whose splits cannot be used.

    Args:
        cases: The cohort.
        needed: Splits that must have a case, such as ``("train", "val")`` for a fit.

    Raises:
        CohortError: A split is unknown, a needed one is empty, or a group is in two.
    """
    firsts: dict[str, Case] = {}
    for case in cases:
        if case.split not in SPLITS:
            near = suggest(case.split, SPLITS) if case.split else ""
            raise CohortError(
                f"case {case.id}: split {case.split!r}{near} is not one of {', '.join(SPLITS)}; correct the table's"
                " split column, name a file of splits (data.splits), or let folds be made (data.fold: 0)"
            )
        first = firsts.setdefault(_group(case), case)
        if first.split != case.split:
            raise CohortError(
                f"group {_group(case)} is in two splits: case {first.id} in {first.split}, case {case.id} in"
                f" {case.split}; correct the splits, or if these cases have nothing in common, the column of groups"
            )
    for split in needed:
        if not any(case.split == split for case in cases):
            raise CohortError(f"the {split} split has no case; give some rows the split {split!r}")


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


def _fold_file(path: Path, fold: int | None) -> Path:
    if not path.is_dir():
        if fold is not None:
            raise CohortError(
                f"{path} is one file of splits, so fold {fold} has no meaning; name the folder, or leave fold out"
            )
        return path
    if fold is None:
        raise CohortError(f"{path} is a folder of splits; say which fold (data.fold: 0)")
    files = [path / name.format(fold) for name in _FOLD_FILES]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        there = sorted(file.name for file in path.glob("*.csv"))
        raise CohortError(
            f"{path} has no {' or '.join(file.name for file in files)}, only {there}; check the fold"
        )
    return found


def _listed(file: Path) -> Iterator[tuple[str, str, str]]:
    """File and line, name and split of everything that a file of splits names."""
    with open_table(file) as (header, lines):
        keys = [name.lower() for name in header]
        if {"train", "val"} <= set(keys) or {"train", "test"} <= set(keys):
            for line, cells in lines:
                for key, cell in zip(keys, cells, strict=True):
                    if key in SPLITS and cell.strip():
                        yield f"{file}:{line}", cell.strip(), key
            return
        columns = recognise(header, file, {})
        if "split" not in columns:
            raise CohortError(
                f"{file} has neither a column split nor the columns train, val and test; a file of splits has either"
            )
        for row in rows_of(lines, columns, file):
            split = row.cells["split"].lower()
            if split not in SPLITS:
                raise CohortError(
                    f"{row.where}: split {split!r}{suggest(split, SPLITS)} is not one of {', '.join(SPLITS)}; correct it"
                )
            yield row.where, row.cells["case" if "case" in columns else "slide"], split
