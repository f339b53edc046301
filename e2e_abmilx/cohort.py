"""Label tables → cases with their slides, labels and splits."""

import difflib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.slide_files import SUFFIXES

#: The three splits of a cohort.
SPLITS = ("train", "val", "test")

#: Names under which tables keep each column, compared without regard to case.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "slide": ("slide", "slide_id", "image", "image_id", "filename", "wsi"),
    "case": ("case", "case_id", "patient", "patient_id"),
    "label": ("label", "target", "category"),
    "time": ("time", "survival_months", "os.time"),
    "event": ("event", "status", "os"),
    "split": ("split", "fold"),
    "group": ("group",),
}


class CohortError(InputError):
    """A label table that cannot be used as it is."""


class Case(NamedTuple):
    """One row of a cohort: what is classified, bootstrapped and split.

    Attributes:
        id: Name of the case (the patient).
        slides: Names of its slides, without file endings.
        label: Class as the table spells it, or an empty string.
        time: Months until the event or the end of observation; NaN where the table has none.
        event: 1 where the event happened, 0 where it was censored.
        split: ``"train"``, ``"val"``, ``"test"``, or an empty string.
        group: Cases of one group are never parted by made splits; the case itself by default.
    """

    id: str
    slides: tuple[str, ...]
    label: str = ""
    time: float = math.nan
    event: int = 0
    split: str = ""
    group: str = ""


def read_cohort(table: Path, *, columns: Mapping[str, str] | None = None) -> list[Case]:
    """Read a label table: a CSV with one row a slide.

    Columns are recognised by their usual names (``COLUMNS``); ids and labels are always read as text.

    Args:
        table: The CSV file.
        columns: The table's own names for ``slide``, ``case``, ``label``, ``time``, ``event``, ``split`` or
            ``group`` where they are not the usual ones.

    Raises:
        CohortError: The file, a column or a row is missing or contradicts another.
    """
    frame = _read_table(table)
    names = _recognise(frame, table, dict(columns or {}))
    rows = pd.DataFrame({name: frame[own] for name, own in names.items()})
    rows["slide"] = rows["slide"].map(_without_suffix)
    if "case" not in rows:
        rows["case"] = rows["slide"]
    cases: dict[str, Case] = {}
    lines: dict[str, int] = {}
    for line, row in enumerate(rows.to_dict("records"), start=2):
        case = _parse_row({str(key): str(value).strip() for key, value in row.items()}, f"{table}:{line}")
        first = cases.get(case.id)
        if first is None:
            cases[case.id], lines[case.id] = case, line
            continue
        if not _agree(first, case):
            raise CohortError(_contradiction(table, case.id, first, case, lines[case.id], line))
        cases[case.id] = first._replace(slides=tuple(dict.fromkeys(first.slides + case.slides)))
    return list(cases.values())


def encode_labels(cases: Sequence[Case], classes: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Number the labels of a cohort.

    Args:
        cases: The cohort.
        classes: The classes in order; by default those of the cohort, sorted (numbers as numbers).

    Returns:
        The class number of each case, and the classes.

    Raises:
        CohortError: A label is outside the classes.
    """
    found = sorted({case.label for case in cases}, key=_numbers_first)
    order = tuple(str(name) for name in classes) if classes is not None else tuple(found)
    unknown = [label for label in found if label not in order]
    if unknown:
        example = next(case for case in cases if case.label == unknown[0])
        raise CohortError(
            f"label {unknown[0]!r} of case {example.id} is not one of the classes {list(order)};"
            " correct the table or the list of classes"
        )
    return [order.index(case.label) for case in cases], order


def assign_folds(cases: Sequence[Case], *, fold: int, folds: int, seed: int) -> list[Case]:
    """Make splits: fold ``fold`` is the test split, the next one validation, the rest training.

    Groups stay whole; each, from the largest down, goes to the fold where it keeps classes most even.

    Args:
        cases: The cohort; its own splits are replaced.
        fold: Which fold to test on, from 0.
        folds: Number of folds, at least 3.
        seed: Order of groups of equal size.

    Raises:
        CohortError: There are fewer groups than folds.
    """
    if folds < 3 or not 0 <= fold < folds:
        raise CohortError(f"fold {fold} of {folds}: there must be at least 3 folds, counted from 0")
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.group].append(case)
    if len(groups) < folds:
        raise CohortError(
            f"{len(groups)} groups cannot make {folds} folds; ask for {len(groups)} folds or fewer"
        )
    names = sorted(groups)
    order = sorted(np.random.default_rng(seed).permutation(names), key=lambda name: -len(groups[name]))
    of_group = _deal([_count_strata(groups[name], cases) for name in order], folds)
    fold_of = dict(zip(order, of_group, strict=True))
    splits = {fold: "test", (fold + 1) % folds: "val"}
    return [case._replace(split=splits.get(fold_of[case.group], "train")) for case in cases]


def _count_strata(members: Sequence[Case], cases: Sequence[Case]) -> np.ndarray:
    """Share of each stratum of the cohort that a group holds."""
    counts = Counter(map(_stratum, members))
    return np.array([counts[name] / total for name, total in sorted(Counter(map(_stratum, cases)).items())])


def _deal(sizes: Sequence[np.ndarray], folds: int) -> list[int]:
    """Give each group to the fold that it leaves most even, and every fold at least one group."""
    totals = np.zeros((folds, len(sizes[0])))
    dealt: list[int] = []
    for left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        empty = [k for k in range(folds) if not totals[k].any()]
        allowed = empty if left <= len(empty) else range(folds)
        # least sum of squares; among equals the fold with the fewest
        best = min(allowed, key=lambda k: (round(2 * float(totals[k] @ size), 9), float(totals[k].sum()), k))
        totals[best] += size
        dealt.append(best)
    return dealt


def check_splits(cases: Sequence[Case], *, needed: Sequence[str]) -> None:
    """Refuse a cohort whose splits cannot be used.

    Args:
        cases: The cohort.
        needed: Splits that must have a case, such as ``("train", "val")`` for a fit.

    Raises:
        CohortError: A split is unknown, or a needed one is empty.
    """
    unknown = sorted({case.split for case in cases} - set(SPLITS))
    if unknown:
        raise CohortError(
            f"split {unknown[0]!r} is not one of {', '.join(SPLITS)}; correct the table's split column,"
            " or let folds be made (data.folds: 5, data.fold: 0)"
        )
    for split in needed:
        if not any(case.split == split for case in cases):
            raise CohortError(f"the {split} split has no case; give some rows the split {split!r}")


def match_slides(cases: Sequence[Case], cached: Iterable[str], where: Path) -> tuple[list[Case], list[str]]:
    """Find which cases have all their slides.

    Args:
        cases: The cohort.
        cached: Names of the slides that are there.
        where: The folder that they are in, for the message.

    Returns:
        The cases with every slide, and a line for each slide that is missing or has no label.
    """
    there = set(cached)
    wanted = {slide for case in cases for slide in case.slides}
    complaints = []
    for case in cases:
        for slide in case.slides:
            if slide not in there:
                near = difflib.get_close_matches(slide, sorted(there - wanted), n=1)
                hint = f" (is it {near[0]!r}?)" if near else ""
                complaints.append(f"case {case.id}: no slide {slide!r} in {where}{hint}")
    complaints += [f"slide {slide!r} in {where} has no label" for slide in sorted(there - wanted)]
    return [case for case in cases if all(slide in there for slide in case.slides)], complaints


def _read_table(table: Path) -> pd.DataFrame:
    if not table.is_file():
        raise CohortError(f"{table}: there is no such label table; check the path")
    try:
        frame = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CohortError(f"{table} cannot be read as a CSV: {error}") from error
    if frame.empty:
        raise CohortError(f"{table} has no rows below its header; a row is a slide with its label")
    return frame


def _recognise(frame: pd.DataFrame, table: Path, stated: dict[str, str]) -> dict[str, str]:
    """The table's own name of each of our columns."""
    own = {str(name).strip().lower(): str(name) for name in frame.columns}
    for name, column in stated.items():
        if name not in COLUMNS:
            raise CohortError(f"columns: {name!r} is not one of {', '.join(COLUMNS)}")
        if column not in frame.columns:
            raise CohortError(
                f"{table} has no column {column!r} (stated for {name}); it has {list(own.values())}"
            )
    names = dict(stated)
    for name, usual in COLUMNS.items():
        known = [own[key] for key in usual if key in own and own[key] not in names.values()]
        if name not in names and known:
            names[name] = known[0]
    if "slide" not in names:
        raise CohortError(
            f"{table} has no column of slide names (one of {', '.join(COLUMNS['slide'])}), only {list(own.values())};"
            " say which it is with columns: {slide: NAME}"
        )
    return names


def _parse_row(row: Mapping[str, str], where: str) -> Case:
    if not row["slide"] or not row["case"]:
        raise CohortError(f"{where}: the slide or case is empty; every row names both")
    event = row.get("event", "0") or "0"
    if event not in ("0", "1", "0.0", "1.0"):
        raise CohortError(f"{where}: event {event!r} is neither 1 (happened) nor 0 (censored)")
    time = math.nan
    if row.get("time"):
        try:
            time = float(row["time"])
        except ValueError:
            raise CohortError(f"{where}: time {row['time']!r} is not a number of months") from None
        if time < 0 or not math.isfinite(time):
            raise CohortError(
                f"{where}: time {row['time']!r} is negative or not finite; months from 0 upwards"
            )
    return Case(
        id=row["case"],
        slides=(row["slide"],),
        label=row.get("label", ""),
        time=time,
        event=int(float(event)),
        split=row.get("split", "").lower(),
        group=row.get("group", "") or row["case"],
    )


def _agree(first: Case, other: Case) -> bool:
    return repr(first._replace(slides=())) == repr(other._replace(slides=()))  # repr: NaN equals NaN


def _contradiction(table: Path, case: str, first: Case, other: Case, line: int, other_line: int) -> str:
    if first.split != other.split:
        return (
            f"{table}:{line} and :{other_line}: case {case} is in two splits ({first.split!r} and {other.split!r});"
            " all slides of a case belong to one"
        )
    return (
        f"{table}:{line} and :{other_line}: case {case} has two labels ({_describe(first)} and {_describe(other)});"
        " all slides of a case share one"
    )


def _describe(case: Case) -> str:
    return repr(case.label) if math.isnan(case.time) else f"{case.time:g} months, event {case.event}"


def _stratum(case: Case) -> str:
    return case.label if math.isnan(case.time) else f"event {case.event}"


def _without_suffix(name: str) -> str:
    path = Path(str(name).strip())
    return path.stem if path.suffix.lower() in (*SUFFIXES, ".pt", ".h5", ".zarr") else path.name


def _numbers_first(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return math.inf, label
