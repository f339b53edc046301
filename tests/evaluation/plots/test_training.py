import pandas as pd
import pytest
from drawn import curves_of, legend_texts

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.evaluation.plots import plot_attention_sparsity, plot_folds, plot_learning_curves


def test_learning_curves_have_one_point_per_epoch(metrics: pd.DataFrame) -> None:
    columns = {"training": "train/loss_epoch", "validation": "val/loss"}
    axes = plot_learning_curves(metrics, columns, measure="loss")
    assert [curve.tolist() for curve in curves_of(axes)] == [[[0, 0.8], [1, 0.5]], [[0, 0.9], [1, 0.7]]]
    assert legend_texts(axes) == ["training", "validation"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")


def test_a_missing_column_is_named_in_the_error(metrics: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="the metrics have no val/auc, only epoch, step, train/loss_epoch"):
        plot_learning_curves(metrics, {"validation": "val/auc"}, measure="AUC")


def test_attention_sparsity_ranges_from_0_to_1(metrics: pd.DataFrame) -> None:
    axes = plot_attention_sparsity(metrics)
    assert [curve[:, 1].tolist() for curve in curves_of(axes)] == [[0.7, 0.4], [0.8, 0.6]]
    assert axes.get_ylim() == (0, 1)


def test_folds_are_drawn_with_intervals_and_mean() -> None:
    folds = [Estimate(point, point, 0.05, point - 0.1, point + 0.05, 9, 0) for point in (0.7, 0.8, 0.9)]
    axes = plot_folds(folds, "AUC", name="ABMILX")
    plot_folds(folds[:1], "AUC", name="ABMIL", axes=axes)
    assert legend_texts(axes) == ["ABMILX 0.800 ± 0.100", "ABMIL 0.700"]
    assert curves_of(axes)[0][:, 1].tolist() == pytest.approx([0.7, 0.8, 0.9])
    *_, (bars,) = axes.containers[0]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx([point - 0.1, point + 0.05]) for point in (0.7, 0.8, 0.9)
    ]


def test_a_point_outside_its_interval_is_drawn_correctly() -> None:
    axes = plot_folds([Estimate(0.9, 0.7, 0.05, 0.6, 0.8, 9, 0), Estimate(0.5, 0.7, 0.05, 0.6, 0.8, 9, 0)], "AUC")
    (points,) = curves_of(axes)
    assert points[:, 1].tolist() == [0.9, 0.5]
    *_, (bars,) = axes.containers[0]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [pytest.approx([0.6, 0.8])] * 2
