from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import LogNorm

from e2e_abmilx.heatmaps import Contribution, SlideAttention
from e2e_abmilx.heatmaps.colours import Colouring


def test_uniform_attention_has_the_middle_colour(attention: SlideAttention) -> None:
    colouring = Colouring.from_attention(attention, "attention")
    assert isinstance(colouring.norm, LogNorm)
    assert colouring.norm(1.0) == pytest.approx(0.5)
    assert colouring.values.shape == (4, len(attention.coords))


def test_zero_contribution_has_the_middle_colour(contributing: SlideAttention) -> None:
    colouring = Colouring.from_attention(contributing, "contribution")
    values = contributing.known_contribution().values
    assert colouring.names == ["contribution"]
    assert np.array_equal(colouring.values, values[None])
    assert colouring.norm(0.0) == pytest.approx(0.5)
    reach = colouring.ticks[-1]
    assert np.abs(values).max() <= reach < 2.6 * np.abs(values).max()
    assert colouring.norm(reach) == pytest.approx(1)
    np.testing.assert_allclose(colouring.norm(-values), 1 - colouring.norm(values), atol=1e-12)
    assert colouring.label == "contribution to the log-odds of tumour:\nwith the patch minus without it"


@given(st.floats(1e-6, 1e3), st.sampled_from([-1, 1]))
def test_the_colour_bar_ends_at_the_next_round_number(largest: float, sign: int) -> None:
    attention = SlideAttention(
        None, np.zeros((2, 2), np.int64), np.zeros(2, np.int64), np.ones((1, 2), np.float32),  # type: ignore[arg-type]
        Contribution("risk", np.array([0.0, sign * largest])),
    )  # fmt: skip
    low, *_, reach = Colouring.from_attention(attention, "contribution").ticks
    assert low == -reach
    assert largest <= reach <= 2.5001 * largest
    assert f"{reach:.0e}"[0] in "125"


def test_patches_without_contribution_are_pale(attention: SlideAttention) -> None:
    none = replace(attention, contribution=Contribution("risk", np.zeros(len(attention.coords))))
    colouring = Colouring.from_attention(none, "contribution")
    assert (colouring.norm(colouring.values) == 0.5).all()


def test_ranks_are_evenly_spaced(attention: SlideAttention) -> None:
    colouring = Colouring.from_attention(attention, "rank")
    count = len(attention.coords)
    expected = 100 * np.arange(1, count + 1) / count
    for plane in colouring.values:
        np.testing.assert_allclose(np.sort(plane), expected, rtol=1e-5)
    assert colouring.values[0].argmax() == attention.rank().argmin()
