"""The audit for shortcuts as sentences, CSV and a table of the page."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.reports.audit import Audit, Finding
from e2e_abmilx.reports.audit_questions import COLOURS, EMBEDDINGS
from e2e_abmilx.reports.audited import TCGA_SITE
from e2e_abmilx.reports.page_table import Table
from e2e_abmilx.reports.tables import align, decimals, with_interval

_COLUMNS = [
    "source", "target", "measure", "cases", "value", "std", "low", "high", "chance", "p_value", "model", "flagged", "reason",
]  # fmt: skip
_TITLES = {"auc": "AUC", "c_index": "C-index", "spearman": "Spearman ρ"}

EXPLANATION = (
    "Columns and colour statistics predict the truth of all cases of the cohort, and embeddings of tested cases predict"
    " columns within classes of the truth; each is cross-validated, with one case per patient. Intervals: 95 % over cases."
    " p: permutation test, adjusted for all tests (Holm). Flagged: p < 0.05, and AUC or C-index at least 0.6, or ρ at"
    " least 0.2. Of a prediction of nothing, cross-validation is often somewhat below chance"
)


def write_audit(audit: Audit, path: Path) -> None:
    """Write one row per question.

    The columns are ``source, target, measure, cases, value, std, low, high, chance, p_value, model, flagged, reason``.
    ``model`` is the measure of the model's own test; undefined numbers are empty.
    """
    table = pd.DataFrame(map(_row, audit.findings), columns=_COLUMNS, dtype=object)
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def audit_text(audit: Audit) -> str:
    """Return the warnings, a table of all questions, and what was not audited."""
    parts = ["Shortcuts", *(f"! {warning}" for warning in warnings(audit))]
    table = audit_table(audit)
    if table.rows:
        parts += [align([list(map(str, row)) for row in [table.head, *table.rows]]), EXPLANATION]
    return "\n".join([*parts, *gaps(audit)])


def warnings(audit: Audit) -> list[str]:
    """Return a sentence per flagged finding: what it is, what it means, and what to do."""
    return [_warning(one) for one in audit.findings if one.flagged]


def gaps(audit: Audit) -> list[str]:
    """Return a sentence per question that cannot be judged, and per thing that was not audited."""
    asked = [one for one in audit.findings if one.reason]
    return [*(f"{_asked(one)} cannot be judged: {one.reason}" for one in asked), *audit.notes]


def audit_table(audit: Audit) -> Table:
    """Return one row per question."""
    head = ["predictor", "of", "cases", "measure", "value", "chance", "p", "model", "verdict"]
    return Table("Shortcuts, with 95 % intervals", head, [list(_cells(one)) for one in audit.findings])


def _cells(one: Finding) -> Iterator[object]:
    yield one.question.source
    yield one.question.target
    yield one.question.cases
    yield _TITLES.get(one.measure, "–")
    yield with_interval(one.association.estimate) if one.association else "–"
    for value in (one.chance, one.p_value, one.own):
        yield decimals(value)
    yield ("flagged" if one.flagged else "not flagged") if one.association else "cannot be judged"


def _asked(one: Finding) -> str:
    return f"whether {one.question.source} {_verb(one.question.source)} the {one.question.target}"


def _verb(source: str) -> str:
    return "predict" if source in (COLOURS, EMBEDDINGS) else "predicts"


def _warning(one: Finding) -> str:
    source, target = one.question.source, one.question.target
    assert one.association is not None  # a flagged one has been judged
    value = f"{_TITLES[one.measure]} {_short(one.association.estimate)}"
    if source == EMBEDDINGS:
        return (
            f"the embeddings tell the values of {target} apart, within classes of the truth: {value}, chance"
            f" {one.chance:g}; the predictions may depend on it. {_cure(target)}"
        )
    rests = f"the model's {one.own:.2f} may rest on it"
    if source == COLOURS:
        rests += ", be it staining, scanner or the colour of the tissue"
    cure = "Test on slides of another laboratory (e2e-abmilx evaluate)." if source == COLOURS else _cure(source)
    return f"{source} alone {_verb(source)} the {target}: {value}; {rests}. {cure}"


def _short(value: Estimate) -> str:
    return f"{value.point:.2f} ({value.low:.2f} to {value.high:.2f})"


def _cure(column: str) -> str:
    setting = "data.by_site: true" if column == TCGA_SITE else f"data.columns: {{group: {column}}}"
    return f"Split by {column} ({setting}), or balance it."


def _row(one: Finding) -> dict[str, object]:
    found = one.association
    numbers = {} if found is None else {**found.estimate._asdict(), "value": found.estimate.point}
    return {
        **numbers, "source": one.question.source, "target": one.question.target, "measure": one.measure,
        "cases": one.question.cases, "chance": one.chance, "p_value": one.p_value, "model": one.own,
        "flagged": int(one.flagged) if found else None, "reason": one.reason,
    }  # fmt: skip
