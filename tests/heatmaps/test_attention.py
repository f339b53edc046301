from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.heatmaps import (
    HeatmapError,
    SlideAttention,
    check_drawable,
    draw_contact_sheet,
    draw_overlay,
    write_ome_zarr,
)
from e2e_abmilx.store import PatchStore, write_store


def test_attention_is_relative_to_uniform_attention_over_the_whole_bag(attention: SlideAttention) -> None:
    np.testing.assert_allclose(attention.heads.mean(axis=1), 1, rtol=1e-5)
    assert attention.mean()[attention.rank() == 1] == attention.mean().max()
    assert sorted(attention.rank()) == list(range(1, len(attention.coords) + 1))
    store, count = attention.store, len(attention.coords)
    alike = np.full((1, count), 1 / (count + 30))  # with 30 patches of another slide
    shared = SlideAttention.from_weights(store, attention.coords, attention.scale, alike, bag_size=count + 30)
    np.testing.assert_allclose(shared.heads, 1, rtol=1e-6)


def test_attention_of_other_patches_is_refused(attention: SlideAttention) -> None:
    store, scale, weights = attention.store, attention.scale, attention.heads / len(attention.coords)
    for coords in (attention.coords + 1, attention.coords[::-1]):
        with pytest.raises(HeatmapError, match="of other patches than those at"):
            SlideAttention.from_weights(store, coords, scale, weights)


def test_a_store_without_positions_is_refused(stores: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "own.zarr", {0.5: (np.zeros((2, 8, 8, 3), np.uint8), None)})
    with pytest.raises(
        HeatmapError,
        match=r"slide_size, slide_mpp, footprints, thumbnail, coords.*make the store from the slide itself",
    ):
        check_drawable(store)
    check_drawable(PatchStore(stores / "slide-003.zarr"))


def test_missing_contributions_are_refused(attention: SlideAttention, tmp_path: Path) -> None:
    for draw in (draw_overlay, draw_contact_sheet):
        with pytest.raises(HeatmapError, match=r"pass contribution=Contribution\(score, values\) with values from"):
            draw(attention, kind="contribution")
    with pytest.raises(HeatmapError, match="leave_one_out"):
        write_ome_zarr(attention, tmp_path / "contribution.ome.zarr", kind="contribution")
