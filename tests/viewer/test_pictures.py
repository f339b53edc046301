"""Pictures of rectangles, against pixels that are read and averaged here."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from viewed_runs import draw_texture, write_pyramid

from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore, write_store
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
    starts = np.arange(0, height, factor), np.arange(0, width, factor)
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(float), starts[0], axis=0), starts[1], axis=1)
    counts = np.outer(*(np.diff([*start, end]) for start, end in zip(starts, (height, width), strict=True)))
    return sums / counts[..., None]


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


@pytest.fixture
def grid(tmp_path: Path) -> PatchStore:
    """A store without a thumbnail: 30 of 48 patches of 64 px, and coarse ones that are never shown."""
    patches = draw_texture(30 * 64, 64).reshape(30, 64, 64, 3)
    places = np.random.default_rng(0).choice(48, 30, replace=False)
    coords = np.stack([places % 8, places // 8], axis=1) * 64 + 3
    attributes = {"slide_size": [520, 390], "slide_mpp": 0.5, "footprints": [64.0, 128.0]}
    coarse = (np.zeros((4, 64, 64, 3), np.uint8), np.arange(8).reshape(4, 2))
    return write_store(tmp_path / "grid.zarr", {0.5: (patches, coords), 1.0: coarse}, attributes=attributes)


def test_a_mosaic_shows_the_finest_patches_where_they_lie(grid: PatchStore) -> None:
    mosaic = Mosaic(grid)
    whole = _tiles(mosaic, num_levels(mosaic.size) - 1)
    wanted = np.full((390, 520, 3), 236, np.uint8)
    for patch, (x, y) in zip(grid.read(np.arange(30)), grid.coords(), strict=True):
        wanted[y : y + 64, x : x + 64] = patch
    assert np.array_equal(whole, wanted)
    assert np.array_equal(np.asarray(mosaic.draw_whole(520)), wanted)
    half = _tiles(mosaic, num_levels(mosaic.size) - 2)
    difference = np.abs(half - _shrink(wanted, 2))
    assert difference[:, :250].mean() < 8  # a patch at an odd place is moved by half a pixel


def test_a_tile_of_a_mosaic_shows_no_other_patches(grid: PatchStore) -> None:
    x, y = grid.coords()[5].tolist()
    own = Mosaic(grid).draw(Box(x, y, x + 64, y + 64), (64, 64), most_patches=1)
    assert np.array_equal(np.asarray(own), grid.read([5])[0])


def test_a_damaged_patch_leaves_a_gap_in_a_mosaic(grid: PatchStore) -> None:
    whole = np.asarray(Mosaic(grid).draw_whole(520))
    shard = next((grid.path / "0/patches").glob("c.*"))
    content = bytearray(shard.read_bytes())
    content[20:24] = b"gone"
    damaged = PatchStore(shutil.copytree(grid.path, grid.path.with_name("damaged.zarr")))
    (damaged.path / "0/patches" / shard.name).write_bytes(content)
    found = np.asarray(Mosaic(damaged).draw_whole(520))
    x, y = grid.coords()[0].tolist()
    assert (found[y : y + 64, x : x + 64] == 236).all()
    whole = whole.copy()
    whole[y : y + 64, x : x + 64] = 236
    assert np.array_equal(found, whole)


def test_a_mosaic_of_very_many_patches_is_the_thumbnail(stores: Path, grid: PatchStore) -> None:
    assert np.asarray(Mosaic(grid).draw(Box(0, 0, 520, 390), (520, 390), most_patches=29)).std() == 0
    thumbnail = PatchStore(stores / "slide-000.zarr").thumbnail()
    shown = Mosaic(PatchStore(stores / "slide-000.zarr")).draw(Box(0, 0, 512, 512), (512, 512), most_patches=0)
    assert np.array_equal(np.asarray(shown), thumbnail)


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
