from itertools import pairwise

import numpy as np
import pytest
import torch
from drawn import curves_of, legend_texts, make_rows
from matplotlib.collections import PathCollection
from torchmetrics.functional.classification import binary_average_precision, binary_roc

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import bootstrap
from e2e_abmilx.evaluation.calibration import reliability_curve
from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.evaluation.plots import plot_confusion_matrix, plot_precision_recall, plot_reliability, plot_roc

N_RESAMPLES = 50


def test_roc_equals_torchmetrics_and_its_area_the_bootstrap() -> None:
    rows = make_rows()
    axes = plot_roc(*rows, name="ABMILX", n_resamples=N_RESAMPLES)
    false_rate, true_rate, _ = binary_roc(torch.tensor(rows.probability), torch.tensor(rows.label))
    (curve,) = curves_of(axes)
    np.testing.assert_allclose(curve, np.stack([false_rate, true_rate], 1), atol=1e-6)
    area = bootstrap(Auroc(rows.probability, rows.label), rows.cases, n_resamples=N_RESAMPLES)
    assert legend_texts(axes) == [f"ABMILX AUC {area.point:.3f} ({area.low:.3f}–{area.high:.3f})"]


def test_roc_band_contains_most_of_the_curve() -> None:
    axes = plot_roc(*make_rows(200), n_resamples=200)
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    lows, highs = (
        np.array([reduce(corners[corners[:, 0] == x, 1]) for x in np.unique(corners[:, 0])])
        for reduce in (np.min, np.max)
    )
    assert (highs >= lows).all()
    (curve,) = curves_of(axes)
    at = np.interp(np.unique(corners[:, 0]), *curve.T)
    assert ((lows <= at + 1e-9) & (at <= highs + 1e-9)).mean() > 0.95
    assert 0.02 < (highs - lows).mean() < 0.4


def test_curves_on_the_same_axes_differ_in_colour_and_dashes() -> None:
    axes = plot_roc(*make_rows(), name="a", n_resamples=2)
    again = plot_roc(*make_rows(gap=0.3), name="b", n_resamples=2, axes=axes)
    assert again is axes
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert len(lines) == 2
    assert lines[0].get_color() != lines[1].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert [label.split()[0] for label in legend_texts(axes)] == ["a", "b"]


def test_resamples_with_a_single_class_are_left_out_of_the_band() -> None:
    axes = plot_roc([0.2, 0.9], [0, 1], ["a", "b"], n_resamples=20)
    assert len(curves_of(axes)) == 1
    assert legend_texts(axes)[0].startswith("AUC 1.000")


def test_precision_recall_equals_torchmetrics() -> None:
    rows = make_rows()
    axes = plot_precision_recall(*rows, n_resamples=N_RESAMPLES)
    expected = binary_average_precision(torch.tensor(rows.probability), torch.tensor(rows.label))
    (label,) = legend_texts(axes)
    assert label.startswith(f"AP {float(expected):.3f} (")
    (curve,) = curves_of(axes)
    assert curve[-1] == pytest.approx([1, rows.label.mean()])
    area = float(np.diff(curve[:, 0]) @ curve[1:, 1])
    assert area == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("plot", [plot_roc, plot_precision_recall])
def test_a_third_class_is_refused(plot: object) -> None:
    assert callable(plot)
    with pytest.raises(InputError, match="2 is not a class"):
        plot([0.1, 0.2, 0.3], [0, 1, 2], ["a", "b", "c"])


def test_rows_of_a_confusion_matrix_are_true_classes() -> None:
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


def test_long_class_names_do_not_overlap() -> None:
    names = ["adenocarcinoma of the lung", "squamous cell carcinoma", "ductal carcinoma in situ"] * 2
    for classes in (names[:2], names):
        axes = plot_confusion_matrix([0, 1], [0, 1], classes)
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.canvas.draw()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert [" ".join(label.get_text().split()) for label in axes.get_xticklabels()] == classes
        assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))


def test_fractions_are_left_out_above_8_classes() -> None:
    axes = plot_confusion_matrix([0, 1], [0, 1], list("abcdefghi"))
    assert {text.get_text() for text in axes.texts} == {"0", "1"}


def test_reliability_shows_each_bin_and_the_ece() -> None:
    rows = make_rows(200)
    curve = reliability_curve(rows.probability, rows.label, bins=5)
    axes = plot_reliability(curve, name="val")
    (line,) = curves_of(axes)
    np.testing.assert_allclose(line, np.stack([curve.confidence, curve.frequency], 1))
    (markers,) = (found for found in axes.collections if isinstance(found, PathCollection))
    assert np.argmax(markers.get_sizes()) == np.argmax(curve.rows)
    assert legend_texts(axes) == [f"val ECE {curve.expected_calibration_error:.3f}"]
