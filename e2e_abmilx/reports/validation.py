"""The measures of an external cohort next to those of the internal test, and their difference."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate, bootstrap, bootstrap_two_cohorts, difference_of_estimates
from e2e_abmilx.reports.brier import add_own_brier_scores, followed_horizon, survival_columns
from e2e_abmilx.reports.external_measures import external_measures
from e2e_abmilx.reports.groups import FEWEST_CASES
from e2e_abmilx.reports.measures import Measure, classes_of, has_multi_labels
from e2e_abmilx.reports.stored_measures import StoredMeasures, outputs_of

_Internal = pd.DataFrame | StoredMeasures | None


class Validation(NamedTuple):
    """A measure of two cohorts.

    Attributes:
        internal: Of the internal test; None if there is none, or it lacks this measure.
        external: Of the external cohort.
        difference: External minus internal, the drift; None without an internal value.
    """

    internal: Estimate | None
    external: Estimate
    difference: Estimate | None


class Validated(NamedTuple):
    """All measures of two cohorts.

    Attributes:
        measures: The measures, by name.
        values: Their values, by name.
        external: Predictions of the external cohort, with its Brier scores.
        notes: Warnings that a reader needs to judge the numbers.
    """

    measures: dict[str, Measure]
    values: dict[str, Validation]
    external: pd.DataFrame
    notes: list[str]


def validate(internal: _Internal, external: pd.DataFrame, *, log_hazard: bool = True) -> Validated:
    """Measure an external cohort, and compare it with the internal test.

    The cohorts are independent: each is resampled by itself. Of stored measures the difference has a normal
    approximation. Brier scores of both cohorts have one horizon, up to which both are followed, and each is weighted by
    its own censoring. ``log_hazard`` is that of :func:`~e2e_abmilx.reports.external_measures.external_measures`.

    Raises:
        InputError: If a table is malformed, or the tables do not come from one model.
    """
    refuse_malformed(external, "external")
    if internal is not None:
        _refuse_other_outputs(internal, external)
    if isinstance(internal, pd.DataFrame):
        refuse_malformed(internal, "internal")
    shared = _shared_cases(internal, external)
    internal, external, notes = _with_brier_scores(internal, external)
    measures = external_measures(external, log_hazard=log_hazard)
    return Validated(
        measures, _compare(internal, external, measures), external, [*shared, *_few_cases(external), *notes]
    )


def refuse_malformed(predictions: pd.DataFrame, cohort: str) -> None:
    """Refuse predictions without cases, with a case twice, or with a label that is no class.

    Raises:
        InputError: If they are so.
    """
    if predictions.empty:
        raise InputError(f"the {cohort} cohort has no predictions; predict at least one case whose label is known")
    if predictions.index.has_duplicates:
        case = predictions.index[predictions.index.duplicated()][0]
        raise InputError(f"the {cohort} cohort has two predictions of case {case}; give each case one")
    classes = classes_of(predictions)
    if classes and not has_multi_labels(predictions):
        wrong = predictions.index[~predictions["label"].isin(classes)]
        if len(wrong):
            raise InputError(
                f"{len(wrong)} of {len(predictions)} cases of the {cohort} cohort, first {wrong[0]}, have a label such"
                f" as {predictions.at[wrong[0], 'label']!r}; the classes of the model are {', '.join(classes)}, so correct"
                " the label, or leave the case out"
            )


def _refuse_other_outputs(internal: pd.DataFrame | StoredMeasures, external: pd.DataFrame) -> None:
    ours = internal.outputs if isinstance(internal, StoredMeasures) else outputs_of(internal)
    theirs = outputs_of(external)
    if ours != theirs:
        raise InputError(
            f"the internal test predicts {ours} and the external cohort {theirs}; compare predictions of one model, whose"
            " classes or time edges are the same"
        )


def _shared_cases(internal: _Internal, external: pd.DataFrame) -> list[str]:
    """Return a note if a case name is in both cohorts, which may be a patient of both or a coincidence."""
    shared: list[str] = list(external.index.intersection(internal.index)) if isinstance(internal, pd.DataFrame) else []
    if not shared:
        return []
    note = (
        f"{len(shared)} case names are in both cohorts, first {shared[0]}: if these are the same patients, the external"
        " cohort is not external and the intervals of the differences are wrong"
    )
    return [note]


def _few_cases(external: pd.DataFrame) -> list[str]:
    if len(external) >= FEWEST_CASES:
        return []
    return [f"only {len(external)} external cases: intervals of fewer than {FEWEST_CASES} cases are too narrow"]


def _with_brier_scores(internal: _Internal, external: pd.DataFrame) -> tuple[_Internal, pd.DataFrame, list[str]]:
    """Return both cohorts with Brier scores up to one horizon, as far as possible, and notes on it."""
    external, followed = external.drop(columns="brier", errors="ignore"), followed_horizon(external)
    own = internal.horizon if isinstance(internal, StoredMeasures) else None
    if isinstance(internal, pd.DataFrame):
        internal, own = internal.drop(columns="brier", errors="ignore"), followed_horizon(internal)
    if followed is None:
        unscored = "no IBS: all external cases are censored before the end of the first time bin"
        return internal, external, [unscored] if survival_columns(external) else []
    horizon = followed if own is None else min(followed, own)
    notes = [f"IBS: from 0 to {horizon:.4g} months; weighted by the censoring of each cohort itself"]
    if isinstance(internal, pd.DataFrame) and own is not None:
        internal = add_own_brier_scores(internal, horizon)
    elif isinstance(internal, StoredMeasures) and own is not None and own > horizon:
        internal = internal._replace(
            estimates={name: one for name, one in internal.estimates.items() if name != "brier"}
        )
        notes.append(f"no internal IBS: the stored one is from 0 to {own:.4g} months, beyond the external follow-up")
    return internal, add_own_brier_scores(external, horizon), notes


def _compare(internal: _Internal, external: pd.DataFrame, measures: Mapping[str, Measure]) -> dict[str, Validation]:
    if isinstance(internal, pd.DataFrame):
        theirs = external_measures(internal)
        return {
            name: _of_both(measure, internal, external) if name in theirs else _of_external(measure, external)
            for name, measure in measures.items()
        }
    values = {name: _of_external(measure, external) for name, measure in measures.items()}
    if isinstance(internal, StoredMeasures):
        for name in internal.estimates.keys() & values.keys():
            own, other = internal.estimates[name], values[name].external
            values[name] = Validation(own, other, difference_of_estimates(own, other))
    return values


def _of_both(measure: Measure, internal: pd.DataFrame, external: pd.DataFrame) -> Validation:
    one, two = measure.estimator(internal), measure.estimator(external)
    return Validation(*bootstrap_two_cohorts(one, internal.index.tolist(), two, external.index.tolist()))


def _of_external(measure: Measure, external: pd.DataFrame) -> Validation:
    return Validation(None, bootstrap(measure.estimator(external), external.index.tolist()), None)
