"""The figures of a report."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from e2e_abmilx.evaluation import plots
from e2e_abmilx.evaluation.calibration import reliability_curve
from e2e_abmilx.evaluation.risk_groups import stratify_by_risk
from e2e_abmilx.evaluation.survival_calibration import ObservedToExpected
from e2e_abmilx.evaluation.thresholds import Threshold
from e2e_abmilx.reports.brier import survival_columns
from e2e_abmilx.reports.measures import (
    classes_of,
    has_multi_labels,
    is_regression,
    labels_of,
    multi_labels_of,
    probabilities_of,
)
from e2e_abmilx.reports.report import Report
from e2e_abmilx.reports.summary import Summary, pool
from e2e_abmilx.reports.tables import run_names
from e2e_abmilx.runs.read import Run, read_metrics

_LOSSES = {"training": "train/loss_epoch", "validation": "val/loss"}
_SPARSITY = {"train/fraction_holding_95", "val/fraction_holding_95"}


class Drawing(NamedTuple):
    """A figure of a report.

    Attributes:
        title: Title above the figure.
        caption: How to read it.
        figure: As wide as a journal's column.
    """

    title: str
    caption: str
    figure: Figure


#: Name and table of predictions that are drawn together: a pool, or a run if the runs cannot be pooled.
_Predictions = tuple[str, pd.DataFrame]


class _Curve(NamedTuple):
    """One class against the rest."""

    name: str
    probability: NDArray[np.float64]
    label: NDArray[np.bool_]
    cases: list[str]


def draw_figures(report: Report) -> Iterator[Drawing]:
    """Draw the figures that the predictions and metrics of the runs allow."""
    yield from draw_predictions([one for name, summary in report.summaries.items() for one in _tested(name, summary)])
    yield from _draw_folds(report)
    for name, run in zip(run_names(report.runs), report.runs, strict=True):
        yield from _draw_training(name if len(report.runs) > 1 else "", run)


def draw_predictions(tested: Sequence[tuple[str, pd.DataFrame]]) -> Iterator[Drawing]:
    """Draw named tables of predictions of one task, in common figures where that is legible."""
    _, table = tested[0]
    if is_regression(table):
        yield from _draw_regression(tested)
    elif "risk" in table:
        yield from _draw_survival(tested)
    elif has_multi_labels(table):
        yield from _draw_multi_labels(tested)
    else:
        yield from _draw_classification(tested)


def draw_calibration(tested: Sequence[tuple[str, pd.DataFrame]]) -> Iterator[Drawing]:
    """Draw the calibration of the second of two classes, or of predicted survival, of all tables in one figure."""
    _, table = tested[0]
    classes, axes = classes_of(table), axes_of_page()
    if survival_columns(table):
        for name, one in tested:
            plots.plot_observed_events(*_events(one), name=name, axes=axes)
        edges = ", ".join(f"{months:g}" for months in survival_columns(table))
        caption = (
            f"Observed (Kaplan–Meier) and expected fraction of cases with an event within {edges} months, from left to"
            " right; on the diagonal the model is calibrated."
        )
        yield drawing_of(axes, "Observed and expected events", "", caption)
    elif len(classes) == 2 and not has_multi_labels(table):
        for name, one in tested:
            curve = _curve(one, 1, name)
            plots.plot_reliability(reliability_curve(curve.probability, curve.label, bins=10), name=name, axes=axes)
        caption = "How often the second class was true at its predicted probability; on the diagonal it is calibrated."
        yield drawing_of(axes, "Calibration", classes[1], caption)


def _events(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the expected and the observed fraction of cases with an event, up to each time edge."""
    columns, once = survival_columns(table), np.ones(len(table), dtype=np.int64)
    observed = [
        ObservedToExpected(table[name], table["time"], table["event"], months).observed(once)
        for months, name in columns.items()
    ]
    return 1 - table[list(columns.values())].to_numpy().mean(axis=0), np.array(observed)


def _tested(name: str, summary: Summary) -> list[_Predictions]:
    if summary.pooled:
        return [(name, pool(summary.runs))]
    return list(zip(run_names(summary.runs), [run.predictions for run in summary.runs], strict=True))


def _draw_classification(tested: Sequence[_Predictions]) -> Iterator[Drawing]:
    """Draw all models in one ROC figure if there are two classes, otherwise all classes of each model."""
    if len(classes_of(tested[0][1])) == 2:
        groups = [("", [_curve(table, 1, name) for name, table in tested])]
    else:
        groups = [
            (name, [_curve(table, number, one) for number, one in enumerate(classes_of(table))])
            for name, table in tested
        ]
    yield from _draw_curves(groups)
    for name, table in tested:
        predicted = probabilities_of(table).argmax(axis=1)
        axes = plots.plot_confusion_matrix(predicted, labels_of(table), classes_of(table), axes=axes_of_page())
        caption = "Cases, and their fraction of the true class; predicted is the most probable class."
        yield drawing_of(axes, "Confusion", name, caption)
    axes = axes_of_page()
    for name, table in tested:
        plots.plot_reliability(reliability_curve(probabilities_of(table), labels_of(table)), name=name, axes=axes)
    caption = "How often the most probable class was true; on the diagonal the model is calibrated."
    yield drawing_of(axes, "Reliability", "", caption)


def _curve(table: pd.DataFrame, number: int, name: str) -> _Curve:
    cases = list(map(str, table.index))
    return _Curve(name, probabilities_of(table)[:, number], labels_of(table) == number, cases)


def _draw_multi_labels(tested: Sequence[_Predictions]) -> Iterator[Drawing]:
    models = [(name, _label_curves(table)) for name, table in tested]
    yield from _draw_curves(models)
    for name, curves in models:
        axes = axes_of_page()
        for curve in curves:
            plots.plot_reliability(reliability_curve(curve.probability, curve.label), name=curve.name, axes=axes)
        caption = "How often each class was true; on the diagonal the model is calibrated."
        yield drawing_of(axes, "Reliability", name, caption)


def _label_curves(table: pd.DataFrame) -> list[_Curve]:
    """Return each class over the cases where it is known, without classes that are unknown in all cases."""
    columns = zip(classes_of(table), probabilities_of(table).T, multi_labels_of(table).T, strict=True)
    return [
        _Curve(name, probability[known], label[known] == 1, list(map(str, table.index[known])))
        for name, probability, label in columns
        if (known := ~np.isnan(label)).any()
    ]


def _draw_curves(groups: Sequence[tuple[str, Sequence[_Curve]]]) -> Iterator[Drawing]:
    """Draw the curves of each group in one figure, without those that lack positive or negative cases."""
    figures = (
        (plots.plot_roc, "ROC", "The band is the 95 % interval over cases; the diagonal is random prediction."),
        (
            plots.plot_precision_recall,
            "Precision and recall",
            "AP: average precision. The grey line is the precision of random prediction.",
        ),
    )
    for (plot, title, caption), (name, curves) in itertools.product(figures, groups):
        defined = [curve for curve in curves if curve.label.any() and not curve.label.all()]
        if not defined:
            continue
        axes = axes_of_page(height_mm=66 + 4 * len(defined))  # the legend has one line per curve
        for curve in defined:
            plot(curve.probability, curve.label, curve.cases, name=curve.name, axes=axes)
        yield drawing_of(axes, title, name, caption)


def _draw_survival(tested: Sequence[_Predictions]) -> Iterator[Drawing]:
    for name, table in tested:
        if table["threshold"].isna().any():
            continue
        margin = table["risk"] - table["threshold"]  # each of the pooled runs has its own threshold
        groups = stratify_by_risk(margin, table["time"], table["event"], Threshold(0.0, "val"))
        axes = plots.plot_kaplan_meier(groups, axes=axes_of_page(height_mm=80))
        caption = "High risk: at or above the threshold that each run fitted on its validation cases."
        yield drawing_of(axes, "Kaplan–Meier", name, caption)


def _draw_regression(tested: Sequence[_Predictions]) -> Iterator[Drawing]:
    for name, table in tested:
        cases = list(map(str, table.index))
        axes = plots.plot_predicted_values(
            table["predicted_value"], table["value"], cases, axes=axes_of_page(height_mm=85)
        )
        yield drawing_of(axes, "Predicted values", name, "One point per case; on the line the prediction is exact.")


def _draw_folds(report: Report) -> Iterator[Drawing]:
    key, measure = next(iter(report.measures.items()))
    estimates = {name: [values[key] for values in summary.per_run] for name, summary in report.summaries.items()}
    most = max(map(len, estimates.values()))
    if most < 2 or any(np.isnan([one.low for one in each]).any() for each in estimates.values()):
        return
    axes = axes_of_page()
    for name, each in estimates.items():
        plots.plot_folds(each, measure.title, name=name, axes=axes)
    axes.set_xticks(range(1, most + 1))
    axes.set_xlabel("run, in the order of the tables")
    caption = "With 95 % intervals; the line and the legend give the mean ± std."
    yield drawing_of(axes, f"{measure.title} of each run", "", caption)


def _draw_training(name: str, run: Run) -> Iterator[Drawing]:
    metrics = read_metrics(run.folder)
    losses = {title: column for title, column in _LOSSES.items() if column in metrics}
    if losses:
        axes = plots.plot_learning_curves(metrics, losses, measure="loss", axes=axes_of_page())
        yield drawing_of(axes, "Loss", name, "Mean over each epoch.")
    if set(metrics) >= _SPARSITY:
        axes = plots.plot_attention_sparsity(metrics, axes=axes_of_page())
        caption = "The lower, the fewer patches decide; mean over heads and bags."
        yield drawing_of(axes, "Attention sparsity", name, caption)


def drawing_of(axes: Axes, title: str, name: str, caption: str) -> Drawing:
    """Return the figure of an Axes; the title is followed by the name of what is drawn, if it has one."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return Drawing(f"{title}: {name}" if name else title, caption, figure)


def axes_of_page(*, height_mm: float = 70) -> Axes:
    """Return an Axes without pyplot, which would keep all figures of a report open."""
    return Figure(figsize=(85 / 25.4, height_mm / 25.4), layout="constrained").add_subplot()
