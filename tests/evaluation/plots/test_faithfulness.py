import numpy as np
from drawn import curves_of, legend_texts

from e2e_abmilx.evaluation.plots import COLOURS, plot_patch_removal

CURVES = {"attention": [0.9, 0.2], "contribution": [0.9, 0.1], "random": [0.9, 0.6]}


def test_each_map_has_its_curve_and_its_own_look() -> None:
    axes = plot_patch_removal(CURVES, (0, 99), change="removed", score="risk")
    assert [curve.tolist() for curve in curves_of(axes)] == [
        [[0, first], [99, last]] for first, last in CURVES.values()
    ]
    assert legend_texts(axes) == list(CURVES)
    assert axes.get_xlabel() == "patches removed, %, the highest of the map first"
    assert axes.get_ylabel() == "risk"
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 3


def test_a_map_looks_the_same_without_the_others() -> None:
    every = plot_patch_removal(CURVES, (0, 99), change="removed", score="risk")
    alone = plot_patch_removal({"random": np.array([0.5, 0.4])}, (1, 100), change="added", score="risk", name="first")
    assert alone.lines[0].get_color() == every.lines[2].get_color()
    assert alone.lines[0].get_color() not in COLOURS
    assert legend_texts(alone) == ["first random"]
