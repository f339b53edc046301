from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e_abmilx.cache.overview import draw_overview, draw_sheet
from e2e_abmilx.store import PatchStore, write_store


def test_patches_and_tissue_are_drawn_where_they_are(stores: Path) -> None:
    store = PatchStore(stores / "slide-000.zarr")
    image = np.asarray(draw_overview(store)).astype(int)
    assert max(image.shape[:2]) == 1024
    shrink = image.shape[1] / store.attributes["slide_size"][0]
    blue = np.all(image == (0, 114, 178), axis=2)
    for x, y in store.coords() * shrink:
        assert (
            blue[round(y), round(x) : round(x + 64 * shrink)].mean() > 0.5
        )  # its upper edge; coarse lines may cross
    green = np.all(image == (0, 158, 115), axis=2)
    assert 0 < green.mean() < 0.1


def test_every_cached_slide_has_a_picture(stores: Path) -> None:
    assert {path.stem for path in (stores / "overviews").glob("*.png")} == {
        path.stem for path in stores.glob("*.zarr")
    }
    with Image.open(stores / "overview.png") as sheet:
        assert sheet.width == 5 * 256  # 24 slides on 5 columns
    assert not list((stores / ".claims").iterdir())


def test_sheet_of_any_number(stores: Path) -> None:
    pictures = [(path.stem, path) for path in sorted((stores / "overviews").glob("*.png"))]
    for count in (1, 2, 3):
        assert draw_sheet(pictures[:count]).height > 0


def test_a_store_of_ones_own_has_nothing_to_draw(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.zarr", {0.5: (np.zeros((1, 8, 8, 3), np.uint8), None)})
    with pytest.raises(ValueError, match="no thumbnail"):
        draw_overview(store)
