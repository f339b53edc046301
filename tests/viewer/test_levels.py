"""Levels and tiles of deep zoom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.viewer.levels import TILE, fitted, num_levels, tile_box

SIDES = st.integers(1, 200_000)


@given(SIDES, SIDES)
def test_the_coarsest_level_is_one_tile_and_the_next_is_not(width: int, height: int) -> None:
    levels = num_levels((width, height))
    assert max(width, height) / 2 ** (levels - 1) <= TILE
    assert levels == 1 or max(width, height) / 2 ** (levels - 2) > TILE


@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_tiles_cover_the_slide_once(width: int, height: int, data: st.DataObject) -> None:
    level = data.draw(st.integers(0, num_levels((width, height)) - 1))
    covered = np.zeros((height, width), np.uint8)
    row = 0
    while found := tile_box((width, height), level, 0, row):
        column = 0
        while found := tile_box((width, height), level, column, row):
            (left, top, right, bottom), size = found
            assert 1 <= min(size) <= max(size) <= TILE
            covered[int(top) : int(bottom), int(left) : int(right)] += 1
            column += 1
        row += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("tile", [(-1, 0, 0), (3, 0, 0), (2, 4, 0), (2, 0, 3), (2, -1, 0), (2, 0, -1), (0, 1, 0)])
def test_there_are_no_tiles_outside(tile: tuple[int, int, int]) -> None:
    assert num_levels((1000, 700)) == 3
    assert tile_box((1000, 700), *tile) is None


def test_an_edge_tile_ends_where_the_slide_ends() -> None:
    box, size = tile_box((1001, 700), 1, 1, 1)
    assert box == (512, 512, 1001, 700)
    assert size == (245, 94)


def test_small_pictures_keep_the_aspect() -> None:
    assert fitted((1000, 500), 100) == (100, 50)
    assert fitted((50, 20), 100) == (50, 20)
    assert fitted((100_000, 10), 100) == (100, 1)
