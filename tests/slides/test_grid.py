"""The fine and the coarse grid, compared with slow loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from e2e_abmilx.slides.grid import coarse_grid, patch_grid
from e2e_abmilx.slides.tissue import TissueError

Mask = NDArray[np.bool_]


def slow_fraction(mask: Mask, size: tuple[int, int], x: float, y: float, footprint: float) -> float:
    """Return the fraction of tissue in one patch, mask pixel by mask pixel."""
    rows, columns = mask.shape
    width, height = size[0] / columns, size[1] / rows
    area = 0.0
    for row, column in np.argwhere(mask):
        across = min(x + footprint, (column + 1) * width) - max(x, column * width)
        down = min(y + footprint, (row + 1) * height) - max(y, row * height)
        area += max(0.0, across) * max(0.0, down)
    return area / footprint**2


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.3, 0.7, 1.0]))
    return np.random.default_rng(seed).random((rows, columns)) < density


SIZES = st.tuples(st.integers(40, 700), st.integers(40, 700))
FOOTPRINTS = st.one_of(st.integers(30, 150).map(float), st.floats(30, 150))
OVERLAPS = st.one_of(st.sampled_from([0.0, 0.25, 0.5]), st.floats(0, 0.8))
FRACTIONS = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))


class TestPatchGrid:
    @given(masks(), SIZES, FOOTPRINTS, OVERLAPS, FRACTIONS)
    @settings(max_examples=60, deadline=None)
    def test_exactly_the_patches_with_enough_tissue_are_kept(
        self, mask: Mask, size: tuple[int, int], footprint: float, overlap: float, min_tissue: float
    ) -> None:
        every = patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=0.0)
        kept = patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=min_tissue)
        found = {(x, y) for x, y in kept.tolist()}
        assume(len(every) <= 400)
        for x, y in every.tolist():
            fraction = slow_fraction(mask, size, x, y, footprint)
            if abs(fraction - min_tissue) > 1e-6:
                assert ((x, y) in found) == (fraction > min_tissue)

    @given(SIZES, FOOTPRINTS, OVERLAPS)
    @settings(max_examples=100, deadline=None)
    def test_a_uniform_lattice_inside_the_slide_up_to_its_borders(
        self, size: tuple[int, int], footprint: float, overlap: float
    ) -> None:
        every = patch_grid(np.ones((3, 4), bool), size, footprint=footprint, overlap=overlap, min_tissue=1.0)
        assert every.dtype == np.int64
        assert every.shape[1:] == (2,)
        assert (every >= 0).all()
        assert (every + footprint <= size).all()
        if min(size) < footprint:
            assert len(every) == 0
            return
        assert every.tolist() == sorted(every.tolist(), key=lambda corner: corner[::-1])
        x, y = np.unique(every[:, 0]), np.unique(every[:, 1])
        assert len(every) == len(x) * len(y)
        stride = footprint * (1 - overlap)
        for origins, length in ((x, size[0]), (y, size[1])):
            assert origins[0] == 0
            assert 0 <= length - footprint - origins[-1] <= 0.05 * footprint + 1
            np.testing.assert_allclose(origins[:-1], stride * np.arange(len(origins) - 1), atol=0.51)
            assert all(second - first <= stride + 1 for first, second in pairwise(origins))

    @given(masks(), SIZES, FOOTPRINTS, OVERLAPS, FRACTIONS, FRACTIONS)
    @settings(max_examples=50, deadline=None)
    def test_requiring_more_tissue_never_adds_a_patch(
        self, mask: Mask, size: tuple[int, int], footprint: float, overlap: float, one: float, other: float
    ) -> None:
        low, high = (
            patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=fraction).tolist()
            for fraction in sorted((one, other))
        )
        assert all(corner in low for corner in high)

    def test_a_blank_slide_has_no_patch(self) -> None:
        assert patch_grid(np.zeros((9, 9), bool), (900, 900), footprint=100).shape == (0, 2)

    def test_fractional_footprint(self) -> None:
        """Patches of 256 px at 0.5 µm/px on a slide of 0.499 µm/px lie 256.5 px apart."""
        footprint = 256 * 0.5 / 0.499
        x = np.unique(patch_grid(np.ones((4, 4), bool), (10_000, 600), footprint=footprint)[:, 0])
        assert x[:4].tolist() == [0, 257, 513, 770]
        assert x[-1] == math.floor(10_000 - footprint)

    def test_a_large_slide(self) -> None:
        every = patch_grid(np.ones((2048, 2048), bool), (100_000, 100_000), footprint=512.0)
        assert len(every) == 196**2

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"footprint": 0.0}, r"footprint is 0.0.*more than 0.*check"),
            ({"footprint": math.nan}, r"footprint is nan"),
            ({"footprint": 9.0, "overlap": 1.0}, r"overlap is 1.0.*\[0, 1\).*0.5"),
            ({"footprint": 9.0, "overlap": -0.1}, r"overlap is -0.1"),
            ({"footprint": 9.0, "min_tissue": 1.1}, r"min_tissue is 1.1.*\[0, 1\].*0.5"),
        ],
    )
    def test_arguments_out_of_range_are_refused(self, arguments: dict[str, float], match: str) -> None:
        with pytest.raises(TissueError, match=match):
            patch_grid(np.ones((4, 4), bool), (100, 100), **arguments)
        fractions = {name: value for name, value in arguments.items() if name != "footprint"}
        nothing = np.zeros((0, 2), np.int64)
        with pytest.raises(TissueError, match=match):
            coarse_grid(
                np.ones((4, 4), bool),
                (100, 100),
                nothing,
                fine_footprint=arguments["footprint"],
                footprint=20.0,
                **fractions,
            )


class TestCoarseGrid:
    @given(SIZES, FOOTPRINTS, OVERLAPS, st.sampled_from([1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0]))
    @settings(max_examples=100, deadline=None)
    def test_coarse_patches_are_centred_on_the_fine_patches_that_they_contain(
        self, size: tuple[int, int], footprint: float, overlap: float, ratio: float
    ) -> None:
        assume(ratio * footprint <= min(size))
        mask, large = np.ones((3, 4), bool), ratio * footprint
        fine = patch_grid(mask, size, footprint=footprint, overlap=overlap)
        coarse = coarse_grid(mask, size, fine, fine_footprint=footprint, footprint=large, overlap=overlap)
        lattice = footprint * (1 - overlap) * np.arange(1000)
        for axis in (0, 1):
            origins = np.unique(coarse[:, axis])
            assert origins[0] == 0
            assert size[axis] - large - origins[-1] <= 0.05 * large + 1
            assert all(second - first <= large + 1 for first, second in pairwise(origins))
            for origin in origins[1:-1]:  # the first and the last may have been moved inwards
                inside = lattice[(lattice >= origin - 1) & (lattice + footprint <= origin + large + 1)]
                assert len(inside) >= 1
                assert abs(inside.mean() + footprint / 2 - (origin + large / 2)) <= 1

    @given(masks(), st.integers(2, 4), FOOTPRINTS)
    @settings(max_examples=50, deadline=None)
    def test_whole_ratios_cover_whole_blocks(self, mask: Mask, ratio: int, footprint: float) -> None:
        size = (round(footprint * ratio * 3) + 2, round(footprint * ratio * 2) + 2)
        fine = patch_grid(mask, size, footprint=footprint, min_tissue=0.0)
        coarse = coarse_grid(mask, size, fine, fine_footprint=footprint, footprint=ratio * footprint, min_tissue=0.0)
        corners = {(x, y) for x, y in fine.tolist()}
        blocks = [(x, y) for x, y in coarse.tolist() if x < 2.5 * ratio * footprint and y < 1.5 * ratio * footprint]
        assert len(blocks) >= 6
        for x, y in blocks:
            column, row = round(x / footprint), round(y / footprint)
            assert (column % ratio, row % ratio) == (0, 0)
            for i in range(ratio):
                for j in range(ratio):
                    assert (round((column + i) * footprint), round((row + j) * footprint)) in corners

    @given(masks(), SIZES, FOOTPRINTS, OVERLAPS, FRACTIONS, st.sampled_from([1.5, 2.0, 4.0]), st.integers(1, 9))
    @settings(max_examples=60, deadline=None)
    def test_each_has_enough_tissue_and_covers_a_fine_patch(
        self,
        mask: Mask,
        size: tuple[int, int],
        footprint: float,
        overlap: float,
        min_tissue: float,
        ratio: float,
        step: int,
    ) -> None:
        large = ratio * footprint
        lattice = patch_grid(mask, size, footprint=footprint, overlap=overlap, min_tissue=0.0)
        fine = lattice[step::step]  # in place of the fine patches that were kept

        def coarse(patches: NDArray[np.int64], least: float) -> list[list[int]]:
            return coarse_grid(
                mask, size, patches, fine_footprint=footprint, footprint=large, overlap=overlap, min_tissue=least
            ).tolist()

        every, kept = coarse(lattice, 0.0), coarse(fine, min_tissue)
        assume(len(every) <= 200)
        centres = fine + footprint / 2
        for x, y in every:
            covers = bool(((centres >= (x, y)) & (centres <= (x + large, y + large))).all(axis=1).any())
            fraction = slow_fraction(mask, size, x, y, large)
            if abs(fraction - min_tissue) > 1e-6:
                assert ([x, y] in kept) == (covers and fraction > min_tissue)
        assert all(corner in every for corner in kept)

    def test_levels_that_are_nearly_twice_as_coarse(self) -> None:
        """Snapped to levels, scales of 0.5 and 1.0 µm/px may come out 1.98 or 2.03 apart."""
        mask, size = np.ones((4, 4), bool), (5130, 5130)
        fine = patch_grid(mask, size, footprint=256.5)
        counts = {
            len(coarse_grid(mask, size, fine, fine_footprint=256.5, footprint=256.5 * ratio))
            for ratio in (1.98, 2.0, 2.03)
        }
        assert counts == {100}

    def test_a_slide_smaller_than_a_coarse_patch_has_none(self) -> None:
        mask, size = np.ones((4, 4), bool), (500, 1500)
        fine = patch_grid(mask, size, footprint=300.0)
        assert len(fine) == 10
        assert coarse_grid(mask, size, fine, fine_footprint=300.0, footprint=600.0).shape == (0, 2)

    def test_coarse_must_not_be_finer(self) -> None:
        with pytest.raises(TissueError, match=r"coarse footprint 128 is smaller than the fine one, 256; give"):
            coarse_grid(
                np.ones((4, 4), bool), (999, 999), np.zeros((0, 2), np.int64), fine_footprint=256.0, footprint=128.0
            )
