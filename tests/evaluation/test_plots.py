from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_average_precision, binary_roc

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate, bootstrap
from e2e_abmilx.evaluation.calibration import reliability_curve
from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.evaluation.plots import (
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
from e2e_abmilx.evaluation.risk_groups import compare_risk_groups
from e2e_abmilx.evaluation.thresholds import Threshold

_DRAWS = 50


@pytest.fixture(autouse=True)
def _on_no_screen() -> Iterator[None]:
    backend, before = matplotlib.get_backend(), dict(matplotlib.rcParams)
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)
    changed = {name for name, value in matplotlib.rcParams.items() if value != before[name]}
    assert changed <= {"backend", "backend_fallback"}


class _Rows(NamedTuple):
    probability: NDArray[np.float64]
    label: NDArray[np.int64]
    cases: list[str]


def _rows(count: int = 60, *, gap: float = 1.0, seed: int = 0) -> _Rows:
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    score = np.round(gap * label + rng.normal(size=count), 1)  # rounded: ties
    return _Rows(1 / (1 + np.exp(-score)), label, [f"case-{i // 2}" for i in range(count)])


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def _curves(axes: Axes) -> list[NDArray[np.float64]]:
    """The named lines."""
    return [line.get_xydata() for line in axes.lines if not str(line.get_label()).startswith("_")]


def test_roc_is_torchmetrics_curve_with_the_area_of_the_bootstrap() -> None:
    rows = _rows()
    axes = plot_roc(*rows, name="ABMILX", n_resamples=_DRAWS)
    false_share, true_share, _ = binary_roc(torch.tensor(rows.probability), torch.tensor(rows.label))
    (curve,) = _curves(axes)
    np.testing.assert_allclose(curve, np.stack([false_share, true_share], 1), atol=1e-6)
    area = bootstrap(Auroc(rows.probability, rows.label), rows.cases, n_resamples=_DRAWS)
    assert _legend(axes) == [f"ABMILX AUC {area.point:.3f} ({area.low:.3f}–{area.high:.3f})"]


def test_band_of_the_roc_holds_most_of_the_curve() -> None:
    axes = plot_roc(*_rows(200), n_resamples=200)
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    lows, highs = (
        np.array([reduce(corners[corners[:, 0] == x, 1]) for x in np.unique(corners[:, 0])])
        for reduce in (np.min, np.max)
    )
    assert (highs >= lows).all()
    (curve,) = _curves(axes)
    at = np.interp(np.unique(corners[:, 0]), *curve.T)
    assert ((lows <= at + 1e-9) & (at <= highs + 1e-9)).mean() > 0.95
    assert 0.02 < (highs - lows).mean() < 0.4


def test_curves_on_one_axes_differ_in_colour_and_dashes() -> None:
    axes = plot_roc(*_rows(), name="a", n_resamples=2)
    again = plot_roc(*_rows(gap=0.3), name="b", n_resamples=2, axes=axes)
    assert again is axes
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert len(lines) == 2
    assert lines[0].get_color() != lines[1].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert [label.split()[0] for label in _legend(axes)] == ["a", "b"]


def test_resamples_of_one_class_leave_a_curve_without_a_crash() -> None:
    axes = plot_roc([0.2, 0.9], [0, 1], ["a", "b"], n_resamples=20)
    assert len(_curves(axes)) == 1
    assert _legend(axes)[0].startswith("AUC 1.000")


def test_precision_recall_has_the_average_precision_of_torchmetrics() -> None:
    rows = _rows()
    axes = plot_precision_recall(*rows, n_resamples=_DRAWS)
    expected = binary_average_precision(torch.tensor(rows.probability), torch.tensor(rows.label))
    (label,) = _legend(axes)
    assert label.startswith(f"AP {float(expected):.3f} (")
    (curve,) = _curves(axes)
    assert curve[-1] == pytest.approx([1, rows.label.mean()])
    area = float(np.diff(curve[:, 0]) @ curve[1:, 1])
    assert area == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("plot", [plot_roc, plot_precision_recall])
def test_labels_of_more_classes_are_refused(plot: object) -> None:
    assert callable(plot)
    with pytest.raises(InputError, match="2 is not a class"):
        plot([0.1, 0.2, 0.3], [0, 1, 2], ["a", "b", "c"])


def test_confusion_matrix_counts_labels_by_rows() -> None:
    axes = plot_confusion_matrix([1, 1, 0, 2, 2, 2], [0, 1, 0, 2, 2, 1], ["normal", "benign", "invasive"])
    texts = np.array([text.get_text() for text in axes.texts]).reshape(3, 3)
    assert texts.tolist() == [
        ["1\n50%", "1\n50%", "0\n0%"],
        ["0\n0%", "1\n50%", "1\n50%"],
        ["0\n0%", "0\n0%", "2\n100%"],
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["normal", "benign", "invasive"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert axes.texts[8].get_color() == "white"  # on dark blue


def test_long_names_of_classes_do_not_overlap() -> None:
    names = ["adenocarcinoma of the lung", "squamous cell carcinoma", "ductal carcinoma in situ"] * 2
    for classes in (names[:2], names):
        axes = plot_confusion_matrix([0, 1], [0, 1], classes)
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.canvas.draw()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert [" ".join(label.get_text().split()) for label in axes.get_xticklabels()] == classes
        assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))


def test_shares_are_left_out_where_they_have_no_room() -> None:
    axes = plot_confusion_matrix([0, 1], [0, 1], list("abcdefghi"))
    assert {text.get_text() for text in axes.texts} == {"0", "1"}


def test_reliability_shows_each_bin_and_the_error() -> None:
    rows = _rows(200)
    curve = reliability_curve(rows.probability, rows.label, bins=5)
    axes = plot_reliability(curve, name="val")
    (line,) = _curves(axes)
    np.testing.assert_allclose(line, np.stack([curve.confidence, curve.frequency], 1))
    (markers,) = (found for found in axes.collections if isinstance(found, PathCollection))
    assert np.argmax(markers.get_sizes()) == np.argmax(curve.rows)
    assert _legend(axes) == [f"val ECE {curve.expected_calibration_error:.3f}"]


def test_kaplan_meier_says_p_and_who_is_at_risk() -> None:
    risk = np.repeat([0.0, 1.0], 20)
    time = np.concatenate([np.arange(61.0, 101, 2), np.arange(1.0, 41, 2)])
    event = np.tile([1, 1, 1, 0], 10)
    axes = plot_kaplan_meier(compare_risk_groups(risk, time, event, Threshold(0.5, "train")))
    assert _legend(axes) == ["low risk", "high risk"]
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "log-rank p < 0.001"
    ticks = axes.get_xticks()
    at_risk = [[int((time[risk == group] >= tick).sum()) for tick in ticks] for group in (0, 1)]
    first = texts.index("low risk") + 1
    assert [int(text) for text in texts[first : first + len(ticks)]] == at_risk[0]
    second = texts.index("high risk") + 1
    assert [int(text) for text in texts[second:]] == at_risk[1]
    assert len(axes.collections) == 2  # bands


def test_kaplan_meier_of_an_empty_group() -> None:
    groups = compare_risk_groups([1.0, 2.0], [5.0, 9.0], [1, 0], Threshold(0.5, "train"))
    axes = plot_kaplan_meier(groups)
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "log-rank p undefined"
    assert set(texts[texts.index("low risk") + 1 : texts.index("high risk")]) == {"0"}


@pytest.fixture
def metrics(tmp_path: Path) -> pd.DataFrame:
    """As a run writes it: training and validation on rows of their own."""
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss_epoch,train/fraction_holding_95,val/loss,val/fraction_holding_95\n"
        "0,9,,,0.9,0.8\n0,9,0.8,0.7,,\n1,19,,,0.7,0.6\n1,19,0.5,0.4,,\n"
    )
    return pd.read_csv(tmp_path / "metrics.csv")


def test_learning_curves_have_a_point_an_epoch(metrics: pd.DataFrame) -> None:
    columns = {"training": "train/loss_epoch", "validation": "val/loss"}
    axes = plot_learning_curves(metrics, columns, measure="loss")
    assert [curve.tolist() for curve in _curves(axes)] == [[[0, 0.8], [1, 0.5]], [[0, 0.9], [1, 0.7]]]
    assert _legend(axes) == ["training", "validation"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")


def test_a_column_that_was_not_logged_is_named(metrics: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="the metrics have no val/auc, only epoch, step, train/loss_epoch"):
        plot_learning_curves(metrics, {"validation": "val/auc"}, measure="AUC")


def test_attention_sparsity_is_a_share(metrics: pd.DataFrame) -> None:
    axes = plot_attention_sparsity(metrics)
    assert [curve[:, 1].tolist() for curve in _curves(axes)] == [[0.7, 0.4], [0.8, 0.6]]
    assert axes.get_ylim() == (0, 1)


def test_folds_have_their_intervals_and_mean() -> None:
    folds = [Estimate(point, point, 0.05, point - 0.1, point + 0.05, 9, 0) for point in (0.7, 0.8, 0.9)]
    axes = plot_folds(folds, "AUC", name="ABMILX")
    plot_folds(folds[:1], "AUC", name="ABMIL", axes=axes)
    assert _legend(axes) == ["ABMILX 0.800 ± 0.100", "ABMIL 0.700"]
    assert _curves(axes)[0][:, 1].tolist() == pytest.approx([0.7, 0.8, 0.9])
    *_, (bars,) = axes.containers[0]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx([point - 0.1, point + 0.05]) for point in (0.7, 0.8, 0.9)
    ]


def test_a_point_outside_of_its_interval_is_drawn_where_it_is() -> None:
    axes = plot_folds(
        [Estimate(0.9, 0.7, 0.05, 0.6, 0.8, 9, 0), Estimate(0.5, 0.7, 0.05, 0.6, 0.8, 9, 0)], "AUC"
    )
    (points,) = _curves(axes)
    assert points[:, 1].tolist() == [0.9, 0.5]
    *_, (bars,) = axes.containers[0]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [pytest.approx([0.6, 0.8])] * 2


def test_legends_and_the_p_value_lie_on_nothing() -> None:
    rows = _rows(gap=-3.0)  # where a curve goes through the lower right corner
    time = np.arange(1.0, 61)
    groups = compare_risk_groups(rows.probability, time, np.ones(60), Threshold(0.5, "val"))
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


def test_all_text_can_be_read_in_a_column_of_a_journal(metrics: pd.DataFrame) -> None:
    rows = _rows()
    groups = compare_risk_groups(rows.probability, np.arange(60.0), rows.label, Threshold(0.5, "val"))
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


def test_a_figure_is_a_columns_width() -> None:
    assert new_axes().figure.get_size_inches() * 25.4 == pytest.approx([85, 70])


@pytest.mark.parametrize("name", ["cost_$5_and_$7", r"a $\oops$ b", "$", "100 % of $x^{$", "_hidden", "a\\b"])
def test_names_are_drawn_as_they_are(metrics: pd.DataFrame, name: str, tmp_path: Path) -> None:
    """Between two dollar signs matplotlib reads mathematics, or fails to; a legend leaves out what begins with _."""
    rows = _rows()
    estimate = Estimate(0.8, 0.8, 0.1, 0.7, 0.9, 9, 0)
    reliability = reliability_curve(rows.probability, rows.label)
    drawn = [
        plot_roc(*rows, name=name, n_resamples=_DRAWS),
        plot_precision_recall(*rows, name=name, n_resamples=_DRAWS),
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
        if axes is not drawn[2]:  # names are along its axes
            assert len(_legend(axes)) == 1
