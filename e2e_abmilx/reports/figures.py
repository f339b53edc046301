"""The figures that fit what runs predict."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from e2e_abmilx.evaluation.calibration import reliability_curve
from e2e_abmilx.evaluation.plots import (
    plot_attention_sparsity,
    plot_confusion_matrix,
    plot_folds,
    plot_kaplan_meier,
    plot_learning_curves,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
)
from e2e_abmilx.evaluation.risk_groups import stratify_by_risk
from e2e_abmilx.evaluation.thresholds import Threshold
from e2e_abmilx.reports.measures import (
    classes_of,
    has_multi_labels,
    labels_of,
    multi_labels_of,
    probabilities_of,
)
from e2e_abmilx.reports.report import Report
from e2e_abmilx.reports.summary import Summary, pool
from e2e_abmilx.reports.tables import run_names
from e2e_abmilx.runs.read import Run

_LOSSES = {"training": "train/loss_epoch", "validation": "val/loss"}
_SPARSITY = ("train/fraction_holding_95", "val/fraction_holding_95")


class Drawing(NamedTuple):
    """A figure of a report.

    Attributes:
        title: Above it.
        caption: How to read it.
        figure: As wide as a journal's column.
    """

    title: str
    caption: str
    figure: Figure


class _Tested(NamedTuple):
    """Predictions that are drawn together: a pool, or a run where the runs cannot be pooled."""

    name: str
    table: pd.DataFrame


class _Curve(NamedTuple):
    """A class against the rest."""

    name: str
    probability: NDArray[np.float64]
    label: NDArray[np.bool_]
    cases: list[str]


def draw_figures(report: Report) -> Iterator[Drawing]:
    """Draw what the predictions and the metrics of the runs allow."""
    summaries = named_summaries(report)
    tested = [one for name, summary in summaries.items() for one in _tested(name, summary)]
    yield from _draw_tested(tested)
    yield from _draw_folds(report)
    runs = [run for summary in summaries.values() for run in summary.runs]
    for name, run in zip(run_names(runs), runs, strict=True):
        yield from _draw_training(name if len(runs) > 1 else "", run)


def named_summaries(report: Report) -> dict[str, Summary]:
    """Return the summaries of a comparison as its first and second, and an only one without a name."""
    if report.against is None:
        return {"": report.summary}
    return {"first": report.summary, "second": report.against}


def _tested(name: str, summary: Summary) -> list[_Tested]:
    if summary.pooled:
        return [_Tested(name, pool(summary.runs))]
    named_runs = zip(run_names(summary.runs), summary.runs, strict=True)
    return [_Tested(name, run.predictions) for name, run in named_runs]


def _draw_tested(tested: Sequence[_Tested]) -> Iterator[Drawing]:
    table = tested[0].table
    if "risk" in table:
        yield from _draw_survival(tested)
    elif has_multi_labels(table):
        yield from _draw_multi_labels(tested)
    else:
        yield from _draw_classification(tested)


def _draw_curves(groups: Iterable[tuple[str, Sequence[_Curve]]]) -> Iterator[Drawing]:
    """Draw the curves of each group that has positive and negative cases in one figure."""
    for name, curves in groups:
        defined = [curve for curve in curves if curve.label.any() and not curve.label.all()]
        if not defined:
            continue
        height_mm = 66 + 4 * len(defined)  # the legend has a line a curve
        axes = _new_axes(height_mm=height_mm)
        for curve in defined:
            plot_roc(curve.probability, curve.label, curve.cases, name=curve.name, axes=axes)
        yield _drawing(
            axes, "ROC", name, "The band is the 95 % interval over cases; the diagonal is a coin's."
        )
        axes = _new_axes(height_mm=height_mm)
        for curve in defined:
            plot_precision_recall(curve.probability, curve.label, curve.cases, name=curve.name, axes=axes)
        yield _drawing(
            axes, "Precision and recall", name, "AP: average precision. The grey line is a coin's precision."
        )


def _draw_multi_labels(tested: Sequence[_Tested]) -> Iterator[Drawing]:
    models = [(name, _label_curves(table)) for name, table in tested]
    yield from _draw_curves(models)
    for name, curves in models:
        axes = _new_axes()
        for curve in curves:
            plot_reliability(reliability_curve(curve.probability, curve.label), name=curve.name, axes=axes)
        yield _drawing(
            axes, "Reliability", name, "How often each class was true; on the diagonal the model is calibrated."
        )  # fmt: skip


def _label_curves(table: pd.DataFrame) -> list[_Curve]:
    """Each class over the cases where it is known; none where it is known of no case."""
    columns = zip(classes_of(table), probabilities_of(table).T, multi_labels_of(table).T, strict=True)
    return [
        _Curve(name, probability[known], label[known] == 1, list(map(str, table.index[known])))
        for name, probability, label in columns
        if (known := ~np.isnan(label)).any()
    ]


def _draw_classification(tested: Sequence[_Tested]) -> Iterator[Drawing]:
    yield from _draw_curves(_curves(tested))
    for name, table in tested:
        probability, label = probabilities_of(table), labels_of(table)
        axes = plot_confusion_matrix(probability.argmax(axis=1), label, classes_of(table), axes=_new_axes())
        yield _drawing(
            axes, "Confusion", name, "Cases, and their share of the true class; predicted is the most probable class."
        )  # fmt: skip
    axes = _new_axes()
    for name, table in tested:
        plot_reliability(reliability_curve(probabilities_of(table), labels_of(table)), name=name, axes=axes)
    yield _drawing(
        axes, "Reliability", "", "How often the most probable class was true; on the diagonal the model is calibrated."
    )  # fmt: skip


def _curves(tested: Sequence[_Tested]) -> list[tuple[str, list[_Curve]]]:
    """Curves of one figure each: all models of two classes, or all classes of a model."""
    if len(classes_of(tested[0].table)) == 2:
        return [("", [_curve(table, 1, name) for name, table in tested])]
    return [
        (name, [_curve(table, number, one) for number, one in enumerate(classes_of(table))])
        for name, table in tested
    ]


def _curve(table: pd.DataFrame, number: int, name: str) -> _Curve:
    return _Curve(
        name, probabilities_of(table)[:, number], labels_of(table) == number, list(map(str, table.index))
    )


def _draw_survival(tested: Sequence[_Tested]) -> Iterator[Drawing]:
    for name, table in tested:
        if table["threshold"].isna().any():
            continue
        margin = table["risk"] - table["threshold"]  # pooled runs have thresholds of their own
        groups = stratify_by_risk(margin, table["time"], table["event"], Threshold(0.0, "val"))
        yield _drawing(
            plot_kaplan_meier(groups, axes=_new_axes(height_mm=80)),
            "Kaplan–Meier", name,
            "High risk: at or above the threshold that each run fitted on its validation cases.",
        )  # fmt: skip


def _draw_folds(report: Report) -> Iterator[Drawing]:
    key, measure = next(iter(report.measures.items()))
    estimates = {
        name: [values[key] for values in summary.per_run] for name, summary in named_summaries(report).items()
    }
    most = max(map(len, estimates.values()))
    if most < 2 or any(np.isnan([one.low for one in each]).any() for each in estimates.values()):
        return
    axes = _new_axes()
    for name, each in estimates.items():
        plot_folds(each, measure.title, name=name, axes=axes)
    axes.set_xticks(range(1, most + 1))
    axes.set_xlabel("run, in the order of the tables")
    yield _drawing(
        axes, f"{measure.title} of each run", "", "With 95 % intervals; the line and the legend are the mean ± SD."
    )  # fmt: skip


def _draw_training(name: str, run: Run) -> Iterator[Drawing]:
    path = run.folder / "metrics.csv"
    metrics = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    losses = {title: column for title, column in _LOSSES.items() if column in metrics}
    if losses:
        axes = plot_learning_curves(metrics, losses, measure="loss", axes=_new_axes())
        yield _drawing(axes, "Loss", name, "Mean over each epoch.")
    if set(_SPARSITY) <= set(metrics):
        axes = plot_attention_sparsity(metrics, axes=_new_axes())
        yield _drawing(
            axes, "Attention sparsity", name, "The lower, the fewer patches decide; mean over heads and bags."
        )


def _drawing(axes: Axes, title: str, name: str, caption: str) -> Drawing:
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return Drawing(f"{title}: {name}" if name else title, caption, figure)


def _new_axes(*, height_mm: float = 70) -> Axes:
    """An Axes that pyplot does not keep: a report draws more figures than it wants open at a time."""
    return Figure(figsize=(85 / 25.4, height_mm / 25.4), layout="constrained").add_subplot()
