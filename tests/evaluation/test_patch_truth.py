"""Masks laid over patches, against a slow reference, and masks that do not fit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.patch_truth import check_mask, covered_fractions, covered_in_store, slide_size_of
from e2e_abmilx.store import PatchStore, write_store


def _save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_fractions_of_synthetic_slides_are_those_of_the_mask(cohort: Path, stores: Path) -> None:
    """Masks have one pixel per 8 × 8 of level 0, and patches have 64 and 128 level-0 pixels."""
    fractions = []
    for path in sorted(stores.glob("*.zarr")):
        store = PatchStore(path)
        mask = np.asarray(Image.open(cohort / f"masks/{path.stem}.png"))
        for scale in (0, 1):
            side = round(store.attributes["footprints"][scale])
            found = covered_in_store(store, cohort / f"masks/{path.stem}.png", store.coords(scale), scale)
            whole = np.kron(mask > 0, np.ones((8, 8)))
            expected = [whole[y : y + side, x : x + side].mean() for x, y in store.coords(scale) // 8 * 8]
            np.testing.assert_allclose(found, expected)
            fractions += found.tolist()
    assert 0 in fractions
    assert 1 in fractions


@pytest.mark.parametrize("downsample", [1, 3, 10])
def test_any_downsampling_fits(downsample: int, tmp_path: Path) -> None:
    """The left half is marked, so patches are in it, out of it or split, as far as the mask resolves it."""
    width, height = 1200, 600
    mask = np.zeros((height // downsample, width // downsample), np.uint8)
    mask[:, : width // downsample // 2] = 1
    path = _save(tmp_path / "mask.png", mask)
    corners = [(0, 0), (300, 300), (600, 0), (900, 540), (570, 30)]
    found = covered_fractions(path, (width, height), corners, 60.0)
    np.testing.assert_allclose(found, [1, 1, 0, 0, 0.5])


def test_a_patch_over_the_edge_counts_what_is_on_the_slide(tmp_path: Path) -> None:
    path = _save(tmp_path / "mask.png", np.full((10, 10), 255, np.uint8))
    assert covered_fractions(path, (100, 100), [(90, 90), (99, 0)], [40, 2]).tolist() == [1, 1]


def test_a_mask_of_one_pixel_more_or_less_is_rounding(tmp_path: Path) -> None:
    for name, shape in {"floor": (33, 100), "ceil": (34, 101)}.items():
        check_mask(_save(tmp_path / f"{name}.png", np.zeros(shape, np.uint8)), (10_050, 3_370))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((50, 100), np.uint8), r"100 × 50 pixels, and the slide 2000 × 2000, of another aspect ratio"),
        (np.zeros((50, 52), np.uint8), "another aspect ratio"),
        (np.zeros((50, 50, 3), np.uint8), "has the channels R, G, B"),
    ],
)
def test_masks_that_do_not_fit_are_refused(pixels: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        covered_fractions(_save(tmp_path / "mask.png", pixels), (2000, 2000), [(0, 0)], 64)


def test_files_that_are_no_masks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read as a mask"):
        check_mask(tmp_path / "mask.png", (10, 10))


def test_patches_outside_the_slide_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "mask.png", np.zeros((10, 10), np.uint8))
    for corner in ((-1, 0), (0, 100)):
        with pytest.raises(InputError, match="patches lie outside the slide of 100 × 100 pixels"):
            covered_fractions(path, (100, 100), [corner], 10)


def test_stores_without_the_size_of_their_slide_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "own.zarr", {0.5: (np.zeros((2, 8, 8, 3), np.uint8), None)})
    with pytest.raises(InputError, match=r"own\.zarr has no slide_size, so a mask cannot be laid over"):
        slide_size_of(PatchStore(tmp_path / "own.zarr"))
