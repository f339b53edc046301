"""Rules that all figures follow."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import legend_texts, make_rows
from matplotlib.figure import Figure
from matplotlib.text import Text

from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.evaluation.calibration import reliability_curve
from e2e_abmilx.evaluation.plots import (
    COLOURS,
    DASHES,
    new_axes,
    plot_attention_sparsity,
    plot_confusion_matrix,
    plot_folds,
    plot_kaplan_meier,
    plot_learning_curves,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
)
from e2e_abmilx.evaluation.plots.style import next_curve_style
from e2e_abmilx.evaluation.risk_groups import stratify_by_risk
from e2e_abmilx.evaluation.thresholds import Threshold

N_RESAMPLES = 50


def test_legends_and_the_p_value_lie_above_the_axes() -> None:
    rows = make_rows(gap=-3.0)  # a curve through the lower right corner
    time = np.arange(1.0, 61)
    groups = stratify_by_risk(rows.probability, time, np.ones(60), Threshold(0.5, "val"))
    for axes in (
        plot_roc(*rows, n_resamples=20),
        plot_reliability(reliability_curve(rows.probability, rows.label)),
        plot_kaplan_meier(groups),
    ):
        figure, legend = axes.get_figure(root=True), axes.get_legend()
        assert figure is not None
        assert legend is not None
        figure.canvas.draw()
        frame = axes.get_window_extent()
        assert legend.get_window_extent().y0 >= frame.y1 - 1
        p_values = [text.get_window_extent() for text in axes.texts if text.get_text().startswith("log-rank")]
        for box in p_values:
            assert box.y0 >= frame.y1
            assert box.x0 >= legend.get_window_extent().x1


def test_text_is_legible_and_inside_the_figure(metrics: pd.DataFrame) -> None:
    rows = make_rows()
    groups = stratify_by_risk(rows.probability, np.arange(60.0), rows.label, Threshold(0.5, "val"))
    figures = [
        plot_roc(*rows, n_resamples=2), plot_precision_recall(*rows, n_resamples=2),
        plot_confusion_matrix(rows.label, rows.label, ["normal", "tumour"]),
        plot_reliability(reliability_curve(rows.probability, rows.label)), plot_attention_sparsity(metrics),
        plot_kaplan_meier(groups),
        plot_folds([Estimate(0.7, 0.7, 0.1, 0.6, 0.8, 9, 0)], "AUC"),
    ]  # fmt: skip
    for axes in figures:
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.canvas.draw()
        assert figure.get_figwidth() == pytest.approx(85 / 25.4)
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        assert min(text.get_fontsize() for text in axes.findobj(Text) if text.get_text()) >= 7
        legend = axes.get_legend()
        written = [axes.xaxis.label, axes.yaxis.label, *axes.texts, *(legend.get_texts() if legend else [])]
        for text in written:
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0, text.get_text()
            assert box.y0 >= 0, text.get_text()
            assert box.x1 <= figure.bbox.x1, text.get_text()
            assert box.y1 <= figure.bbox.y1, text.get_text()


def test_a_figure_has_the_width_of_a_journal_column() -> None:
    assert new_axes().figure.get_size_inches() * 25.4 == pytest.approx([85, 70])


@pytest.mark.parametrize("name", ["cost_$5_and_$7", r"a $\oops$ b", "$", "100 % of $x^{$", "_hidden", "a\\b"])
def test_names_with_special_characters_are_drawn_literally(metrics: pd.DataFrame, name: str, tmp_path: Path) -> None:
    """Matplotlib parses text between dollar signs as mathematics, and a legend omits labels that begin with _."""
    rows = make_rows()
    estimate = Estimate(0.8, 0.8, 0.1, 0.7, 0.9, 9, 0)
    reliability = reliability_curve(rows.probability, rows.label)
    drawn = [
        plot_roc(*rows, name=name, n_resamples=N_RESAMPLES),
        plot_precision_recall(*rows, name=name, n_resamples=N_RESAMPLES),
        plot_confusion_matrix(rows.label, rows.label, ["other", name]),
        plot_reliability(reliability, name=name),
        plot_learning_curves(metrics, {name: "train/loss_epoch"}, measure=name),
        plot_folds([estimate, estimate], name, name=name),
    ]
    for number, axes in enumerate(drawn):
        figure = axes.get_figure(root=True)
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / f"{number}.png", dpi=50)
        texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and name in text.get_text()]
        assert texts
        assert not any(text.get_parse_math() for text in texts)
        if axes is not drawn[2]:  # shows the names along its axes
            assert len(legend_texts(axes)) == 1


def test_styles_repeat_after_the_last_colour() -> None:
    axes = new_axes()
    for number in range(len(COLOURS)):
        style = next_curve_style(axes)
        assert style == (COLOURS[number], DASHES[number % len(DASHES)])
        axes.plot([0, 1], [0, 1], label=str(number))
    assert next_curve_style(axes).colour == COLOURS[0]
