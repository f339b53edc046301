"""What the audit for shortcuts looks at: the patients of a cohort, where their slides come from, and their colours."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from e2e_abmilx.cache.colours import read_colours
from e2e_abmilx.cohort import Case, CohortError
from e2e_abmilx.cohort.group_columns import find_group_columns, read_group_columns, tissue_source_sites
from e2e_abmilx.evaluation.shortcuts import FEWEST_ROWS
from e2e_abmilx.io.tables import is_missing
from e2e_abmilx.reports.groups import UNKNOWN
from e2e_abmilx.reports.origins import Origin, origins_of
from e2e_abmilx.runs.embeddings import read_embeddings
from e2e_abmilx.runs.read import Run
from e2e_abmilx.store import StoreError

MOST_CASES = 2000  # of a larger cohort so many are drawn, to bound the time
TCGA_SITE = "TCGA site"


class Audited(NamedTuple):
    """The material of an audit.

    Attributes:
        cases: One case of each patient of the cohort.
        patients: Patient of each case of the cohort.
        columns: Columns such as ``site``, as text, indexed by case; all cases of the cohort.
        colours: Colour statistics, indexed by case; of the ``cases`` whose slides are cached.
        embeddings: Embeddings of the tested cases of each run, one case of each patient, indexed by case. A patient that
            several runs test is in the first of them.
        notes: What could not be read, in words.
    """

    cases: list[Case]
    patients: dict[str, str]
    columns: pd.DataFrame
    colours: pd.DataFrame
    embeddings: list[pd.DataFrame]
    notes: list[str]


def read_audited(runs: Sequence[Run], groups: Sequence[str]) -> Audited:
    """Read the label table, the cache and the embeddings of runs; what is gone is noted.

    Args:
        runs: Runs on one cohort; of several label tables, the first is audited.
        groups: Further columns of the label table, besides those with usual names.

    Raises:
        CohortError: The label table lacks one of the ``groups``.
    """
    origin, *others = origins_of(runs)
    notes = [f"not audited: the other label tables or caches of these runs, only {origin.labels}"] if others else []
    cases = _read_cases(origin, runs, notes)
    patients = {case.id: case.group for case in cases}
    columns = _read_columns(origin, cases, groups)
    chosen = _draw(_one_per_patient([case.id for case in cases], patients))
    kept = [case for case in cases if case.id in chosen]
    if cases and not columns.shape[1]:
        notes.append("not audited: sites, because the label table has no column such as site, scanner or batch")
    colours = _read_colours(origin, kept, notes)
    return Audited(kept, patients, columns, colours, _read_embeddings(runs, patients, notes), notes)


def _read_cases(origin: Origin, runs: Sequence[Run], notes: list[str]) -> list[Case]:
    """Return the cases of the runs' splits; groups of the table do not count, only patients."""
    try:
        cases = origin.read_cohort({**dict(origin.columns), "group": None})
    except (CohortError, OSError) as error:
        notes.append(f"not audited: columns and colours, because the label table cannot be read ({error})")
        return []
    if not cases:
        notes.append("not audited: columns and colours, because the settings of the run name no label table")
    split = {str(case) for run in runs for case in run.splits.index}
    return [case for case in cases if case.id in split or not split]


def _read_columns(origin: Origin, cases: Sequence[Case], groups: Sequence[str]) -> pd.DataFrame:
    ids = [case.id for case in cases]
    if origin.labels is None or not cases:
        return pd.DataFrame(index=ids)
    stated = {name: column for name, column in origin.columns if name != "group"}
    usual = [name for name in find_group_columns(origin.labels) if name not in stated.values()]
    table = read_group_columns(origin.labels, list(dict.fromkeys([*groups, *usual])), stated).reindex(ids)
    if sites := tissue_source_sites(cases):
        table[TCGA_SITE] = pd.Series(sites)
    words: pd.DataFrame = table.fillna("").map(lambda cell: UNKNOWN if is_missing(cell) else cell)
    return words


def _one_per_patient(cases: Iterable[str], patients: dict[str, str]) -> list[str]:
    """Return the first case of each patient; cases of one patient are alike, so they do not count separately."""
    firsts: dict[str, str] = {}
    for case in cases:
        firsts.setdefault(patients.get(case, case), case)
    return list(firsts.values())


def _draw(cases: list[str]) -> set[str]:
    order = np.random.default_rng(0).permutation(len(cases))
    return {cases[place] for place in order[:MOST_CASES]}


def _read_colours(origin: Origin, cases: Sequence[Case], notes: list[str]) -> pd.DataFrame:
    """Return the mean over the slides of each case."""
    none = pd.DataFrame()
    if len(cases) < FEWEST_ROWS:  # they would not be judged
        return none
    if origin.cache is None:
        notes.append("not audited: colours, because the run has no cache of slides (data.cache)")
        return none
    try:
        found = read_colours(origin.cache, [slide for case in cases for slide in case.slides])
    except StoreError as error:
        notes.append(f"not audited: colours, because a store cannot be read ({error})")
        return none
    if not found:
        notes.append(f"not audited: colours, because {origin.cache} has none of the slides")
    own = {case.id: [found[slide] for slide in case.slides if slide in found] for case in cases}
    return pd.DataFrame.from_dict({case: np.mean(some, axis=0) for case, some in own.items() if some}, orient="index")


def _read_embeddings(runs: Sequence[Run], patients: dict[str, str], notes: list[str]) -> list[pd.DataFrame]:
    tables, seen = [], set[str]()
    for run in runs:
        table = read_embeddings(run.folder)
        problem = ""
        if table is None:
            problem = "has no embeddings.npz, which a test now writes; test it again"
        elif set(run.predictions.index) != set(table.index):
            problem = "has other cases in embeddings.npz than in predictions.csv; test it again"
        elif not np.isfinite(table.to_numpy()).all():
            problem = "has embeddings that are not finite"
        if table is None or problem:
            notes.append(f"not audited: the embeddings of {run.folder}, because it {problem}")
            continue
        own = [
            case for case in _one_per_patient(run.predictions.index, patients) if patients.get(case, case) not in seen
        ]
        seen |= {patients.get(case, case) for case in own}
        chosen = _draw(own)
        tables.append(table.loc[[case for case in own if case in chosen]])
    return tables
