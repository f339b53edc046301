import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.heatmaps import Raster


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 60)), min_size=1, max_size=12),
    st.floats(1, 40),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_raster_is_the_mean_of_the_patches_on_each_pixel(
    corners: list[tuple[int, int]], footprint: float, shape: tuple[int, int]
) -> None:
    size, coords = (131, 101), np.array(corners)
    values = np.random.default_rng(0).random(len(coords))
    total, count = np.zeros(shape), np.zeros(shape)
    for (x, y), value in zip(coords, values, strict=True):
        left, right = (min(round(edge * (shape[1] / size[0])), shape[1]) for edge in (x, x + footprint))
        top, bottom = (min(round(edge * (shape[0] / size[1])), shape[0]) for edge in (y, y + footprint))
        left, top = min(left, shape[1] - 1), min(top, shape[0] - 1)  # a patch has at least one pixel
        cover = np.s_[top : max(bottom, top + 1), left : max(right, left + 1)]
        total[cover] += value
        count[cover] += 1
    drawn = Raster(coords, footprint, size, shape).paint(values)
    assert np.array_equal(np.isnan(drawn), count == 0)
    np.testing.assert_allclose(drawn[count > 0], (total / np.maximum(count, 1))[count > 0], rtol=1e-6)
