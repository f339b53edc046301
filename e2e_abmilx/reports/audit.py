"""The audit for shortcuts: whether site, scanner, batch or colours predict the truth, and whether a model sees sites."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from e2e_abmilx.evaluation.permutation import holm
from e2e_abmilx.evaluation.shortcuts import Association, TooFewError, associate
from e2e_abmilx.io.progress import track
from e2e_abmilx.reports.audit_questions import Question, ask
from e2e_abmilx.reports.audited import read_audited
from e2e_abmilx.reports.report import Report
from e2e_abmilx.reports.summary import Summary

LEVEL = 0.05  # probability of any false finding in a report


class Finding(NamedTuple):
    """Whether one thing predicts another.

    Attributes:
        question: What predicts what.
        own: The measure of the models' own test; NaN where the embeddings predict.
        measure: ``"auc"``, ``"c_index"`` or ``"spearman"``; empty where it cannot be judged.
        association: How well the target is predicted; None where it cannot be judged.
        chance: The measure without an association.
        p_value: Of the permutation test, adjusted for all tests of the report (Holm); NaN where it cannot be judged.
        flagged: Whether the association is neither chance nor too small to matter.
        reason: Why it cannot be judged.
    """

    question: Question
    own: float
    measure: str = ""
    association: Association | None = None
    chance: float = math.nan
    p_value: float = math.nan
    flagged: bool = False
    reason: str = ""


class Audit(NamedTuple):
    """An audit.

    Attributes:
        findings: One per question.
        notes: What was not audited, in words.
    """

    findings: list[Finding]
    notes: list[str]


def audit_shortcuts(report: Report, groups: Sequence[str] = ()) -> Audit:
    """Audit the runs of a report, without those that they are compared with.

    Columns such as ``site``, and colour statistics, predict the truth of all cases of the cohort; the embeddings of the
    tested cases predict the columns within classes of the truth. Each patient counts once.

    Args:
        report: The measures of the runs.
        groups: Columns of the label table, besides those with usual names and the tissue source site of TCGA barcodes.

    Raises:
        CohortError: The label table lacks one of the ``groups``.
    """
    material = read_audited(report.summary.runs, groups)
    questions = list(ask(material, report.summary.runs))
    findings = [_answer(question, report.summary) for question in track(questions, "looking for shortcuts", "tests")]
    adjusted = iter(holm([one.association.p_value for one in findings if one.association]))
    return Audit([_adjust(one, next(adjusted)) if one.association else one for one in findings], material.notes)


def _answer(question: Question, summary: Summary) -> Finding:
    finding = Finding(question, _own_measure(summary, question.own))
    try:
        smooth, truth = question.pose()
    except TooFewError as error:
        return finding._replace(reason=str(error))
    found = associate(smooth, truth)
    relevant = found.estimate.point >= truth.relevant
    return finding._replace(measure=truth.measure, association=found, chance=truth.chance, flagged=relevant)


def _adjust(finding: Finding, p_value: float) -> Finding:
    return finding._replace(p_value=p_value, flagged=finding.flagged and p_value < LEVEL)


def _own_measure(summary: Summary, name: str) -> float:
    if summary.pooled is not None and name in summary.pooled:
        return summary.pooled[name].point
    return summary.spread[name].mean if name in summary.spread else math.nan
