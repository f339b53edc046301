"""Pictures of rectangles, against pixels that are read and averaged here."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from viewed_runs import draw_texture, write_pyramid

from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore
from e2e_abmilx.viewer import pictures
from e2e_abmilx.viewer.levels import TILE, Box, num_levels, tile_box
from e2e_abmilx.viewer.open_slides import OpenSlides
from e2e_abmilx.viewer.pictures import Mosaic, Plain, SlidePicture


def _tiles(picture: SlidePicture | Mosaic, level: int) -> NDArray[np.uint8]:
    """Return a level put together from its tiles."""
    rows, row = [], 0
    while tile_box(picture.size, level, 0, row):
        tiles, column = [], 0
        while found := tile_box(picture.size, level, column, row):
            tile = np.asarray(picture.draw(*found))
            assert tile.shape[1::-1] == found[1]
            tiles.append(tile)
            column += 1
        rows.append(np.concatenate(tiles, axis=1))
        row += 1
    return np.concatenate(rows, axis=0)


def _shrink(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.float64]:
    """Return the mean of each block; the blocks at the edges may be smaller."""
    height, width = pixels.shape[:2]
    rows = [
        [pixels[y : y + factor, x : x + factor].reshape(-1, 3).mean(axis=0) for x in range(0, width, factor)]
        for y in range(0, height, factor)
    ]
    return np.array(rows)


@pytest.mark.parametrize(
    ("size", "levels"), [((640, 512), (1, 2, 4)), ((641, 523), (1, 2)), ((600, 530), (1,)), ((600, 530), (1, 3))]
)
def test_tiles_are_the_slide_at_every_level(tmp_path: Path, size: tuple[int, int], levels: tuple[int, ...]) -> None:
    pixels = draw_texture(size[1], size[0])
    path = write_pyramid(tmp_path / "slide.tiff", pixels, levels)
    picture = SlidePicture(path, size, OpenSlides(), None)
    for level in range(num_levels(size)):
        factor = 2 ** (num_levels(size) - 1 - level)
        found, wanted = _tiles(picture, level), _shrink(pixels, factor)
        assert found.shape == wanted.shape
        difference = np.abs(found - wanted)
        assert difference.mean() < (0.5 if factor == 1 else 3.5), (level, difference.mean())
        if factor == 1:
            assert (difference == 0).all()
        seams = [difference[:, x - 1 : x + 1].mean() for x in range(TILE, found.shape[1] - 1, TILE)]
        assert all(seam < 1.5 * difference.mean() + 1 for seam in seams)


def test_coarse_tiles_of_a_slide_without_levels_read_few_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = draw_texture(1200, 1600)
    path = write_pyramid(tmp_path / "slide.tiff", pixels, (1,))
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 600**2)
    reads = []
    read_level = Slide.read_level
    monkeypatch.setattr(
        Slide, "read_level", lambda self, *box, **more: reads.append(box[3] * box[4]) or read_level(self, *box, **more)
    )
    picture = SlidePicture(path, (1600, 1200), OpenSlides(), None)
    for level in range(num_levels(picture.size)):
        found = _tiles(picture, level)
        wanted = _shrink(pixels, 2 ** (num_levels(picture.size) - 1 - level))
        assert np.abs(found - wanted).mean() < 5
    assert max(reads) <= 600**2


def test_the_thumbnail_of_the_store_stands_for_coarse_tiles(
    cohort: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PatchStore(stores / "slide-000.zarr")
    picture = SlidePicture(cohort / "slides/slide-000.tiff", (512, 512), OpenSlides(), store)
    direct = np.asarray(picture.draw(Box(0, 0, 512, 512), (256, 256)), float)
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 100)
    small = np.asarray(picture.draw(Box(0, 0, 512, 512), (256, 256)), float)
    assert 0 < np.abs(direct - small).mean() < 4


def test_a_mosaic_shows_the_finest_patches_where_they_lie(stores: Path) -> None:
    store = PatchStore(stores / "slide-000.zarr")
    mosaic = Mosaic(store)
    whole = _tiles(mosaic, num_levels(mosaic.size) - 1)
    covered = np.zeros(whole.shape[:2], bool)
    for patch, (x, y) in zip(store.read(np.arange(store.num_patches())), store.coords(), strict=True):
        assert np.array_equal(whole[y : y + 64, x : x + 64], patch)
        covered[y : y + 64, x : x + 64] = True
    thumbnail = Image.fromarray(store.thumbnail()).resize((512, 512), Image.Resampling.HAMMING)
    assert np.abs(whole.astype(int) - np.asarray(thumbnail))[~covered].mean() < 1
    assert np.abs(np.asarray(mosaic.draw_whole(512)).astype(int) - whole).mean() < 1


def test_a_tile_of_a_mosaic_reads_only_patches_that_touch_it(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PatchStore(stores / "slide-000.zarr")
    mosaic, read = Mosaic(store), []
    original = PatchStore.read
    monkeypatch.setattr(
        PatchStore, "read", lambda self, wanted, scale=0: read.extend(wanted) or original(self, wanted, scale)
    )
    x, y = store.coords()[5].tolist()
    mosaic.draw(Box(x, y, x + 64, y + 64), (64, 64))
    assert read == [5]
    read.clear()
    mosaic.draw(Box(x + 1, y, x + 65, y + 64), (64, 64))
    assert 5 in read
    assert len(read) <= 2
    read.clear()
    mosaic.draw(Box(0, 0, 512, 512), (512, 512), most_patches=3)
    assert read == []


def test_a_mosaic_in_small_lies_where_the_slide_lies(cohort: Path, stores: Path) -> None:
    store = PatchStore(stores / "slide-001.zarr")
    slide = SlidePicture(cohort / "slides/slide-001.tiff", (512, 512), OpenSlides(), store)
    for size in (512, 256, 100):
        found, wanted = (
            np.asarray(one.draw(Box(0, 0, 512, 512), (size, size)), float) for one in (Mosaic(store), slide)
        )
        assert np.abs(found - wanted).mean() < 6


def test_a_plain_picture_has_the_size_of_the_slide() -> None:
    assert Plain((1000, 500)).draw_whole(100).size == (100, 50)
    assert len(Plain((1000, 500)).draw(Box(0, 0, 10, 10), (20, 20)).getcolors()) == 1
