import numpy as np
import pytest
from drawn import legend_texts

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.plots import plot_predicted_values


def test_points_are_cases_on_equal_axes() -> None:
    value = np.linspace(10, 20, 30)
    predicted = value + np.tile([-1.0, 1.0], 15)
    axes = plot_predicted_values(predicted, value, [f"case-{number}" for number in range(30)], name="a")
    (points,) = axes.collections
    assert np.array_equal(np.asarray(points.get_offsets()), np.stack([value, predicted], axis=1))
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] < 9
    assert axes.get_xlim()[1] > 21
    (diagonal,) = axes.lines
    assert (diagonal.get_xy1(), diagonal.get_slope()) == ((0, 0), None)  # type: ignore[attr-defined]
    (legend,) = legend_texts(axes)
    r2 = 1 - 30 / np.sum((value - 15) ** 2)
    assert legend.startswith(f"a R² {r2:.3f} (")


def test_a_single_case_has_no_r2() -> None:
    axes = plot_predicted_values([2.0], [2.0], ["a"])
    assert legend_texts(axes) == [" R² nan (nan–nan)"] or legend_texts(axes) == ["R² nan (nan–nan)"]
    assert axes.get_xlim() == (1, 3)
    with pytest.raises(InputError, match="different lengths"):
        plot_predicted_values([1.0, 2.0], [1.0], ["a"])
