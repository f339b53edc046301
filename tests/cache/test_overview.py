"""Overviews show tissue and patches where they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e_abmilx.cache.overview import draw_overview, draw_sheet
from e2e_abmilx.store import PatchStore, write_store


def test_patches_and_tissue_are_drawn_at_their_positions(stores: Path) -> None:
    store = PatchStore(stores / "slide-000.zarr")
    image = np.asarray(draw_overview(store)).astype(int)
    assert max(image.shape[:2]) == 1024
    shrink = image.shape[1] / store.attributes["slide_size"][0]
    blue = np.all(image == (0, 114, 178), axis=2)
    for x, y in store.coords() * shrink:
        upper_edge = blue[round(y), round(x) : round(x + 64 * shrink)]
        assert upper_edge.mean() > 0.5  # lines of coarse patches may cross it
    green = np.all(image == (0, 158, 115), axis=2)
    assert 0 < green.mean() < 0.1


def test_every_cached_slide_has_an_overview(stores: Path) -> None:
    assert {path.stem for path in (stores / "overviews").glob("*.png")} == {path.stem for path in stores.glob("*.zarr")}
    with Image.open(stores / "overview.png") as sheet:
        assert sheet.width == 5 * 256  # 24 slides on 5 columns
    assert not list((stores / ".claims").iterdir())


def test_a_sheet_holds_any_number_of_slides(stores: Path) -> None:
    pictures = sorted((stores / "overviews").glob("*.png"))
    for count, size in ((1, (256, 270)), (2, (512, 270)), (3, (512, 540))):
        assert draw_sheet(pictures[:count]).size == size


def test_a_store_without_thumbnail_is_not_drawn(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.zarr", {0.5: (np.zeros((1, 8, 8, 3), np.uint8), None)})
    with pytest.raises(ValueError, match="no thumbnail"):
        draw_overview(store)
