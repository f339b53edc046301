"""Patches are cut at their exact position, and damage costs only the patches on the damaged tile."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiffslide
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e_abmilx.cache.patches import cut_again, cut_patches
from e2e_abmilx.slides import ReadPlan, Slide
from e2e_abmilx.slides.grid import patch_grid
from e2e_abmilx.synthetic import draw_slide, write_slide

SIDE, TILE = 1024, 256
BAD = 6  # the tile that is damaged: row 1, column 2


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide with levels of 1024, 512, 256 and 128 pixels; 0.5 µm/px."""
    path = tmp_path_factory.mktemp("slides") / "pyramid.tiff"
    write_slide(path, seed=3, lesion_fraction=0.3, side=SIDE)
    return path


@pytest.fixture(scope="module")
def one_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 16 tiles without pyramid; 0.5 µm/px."""
    path = tmp_path_factory.mktemp("slides") / "one_level.tiff"
    pixels = draw_slide(seed=4, lesion_fraction=0.3, side=SIDE)[0]
    _write(path, pixels)
    return path


def _write(path: Path, pixels: np.ndarray, **how: object) -> None:
    settings = {"tile": (TILE, TILE), "compression": "jpeg", "photometric": "rgb", **how}
    tifffile.imwrite(path, pixels, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **settings)


def _grid(slide: Slide, plan: ReadPlan, *, overlap: float = 0.0) -> np.ndarray:
    """Return patches that cover the slide, the last ones moved inwards."""
    mask = np.ones((8, 8), bool)
    return patch_grid(mask, slide.size, footprint=plan.footprint, overlap=overlap)


def _cut(slide: Slide, plan: ReadPlan, coords: np.ndarray, size: int) -> dict[tuple[int, int], np.ndarray]:
    """Cut patches; return them by their coordinates."""
    found = {}
    for patches, kept in cut_patches(slide, plan, coords, size):
        assert patches.dtype == np.uint8
        assert patches.shape == (len(kept), size, size, 3)
        found.update(zip(map(tuple, kept.tolist()), patches, strict=True))
    return found


def _area_mean(level: zarr.Array, x: float, y: float, side: float, size: int) -> np.ndarray:
    """Compute a patch exactly: each pixel is weighted by the fraction that lies under a pixel of the patch."""

    def weights(start: float, length: int) -> np.ndarray:
        edges = np.clip(start + np.arange(size + 1) * side / size, 0, length)
        pixels = np.arange(length)
        covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        covered = np.clip(covered, 0, None)
        return covered / covered.sum(axis=1, keepdims=True)

    left, top = math.floor(x), math.floor(y)
    crop = level[top : math.ceil(y + side), left : math.ceil(x + side)].astype(float)
    rows, columns = weights(y - top, crop.shape[0]), weights(x - left, crop.shape[1])
    return np.einsum("ij,jkc,lk->ilc", rows, crop, columns, optimize=True)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio, dB."""
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b.astype(float)) ** 2).mean(), 1e-9)))


def _level(path: Path, level: int) -> zarr.Array:
    """Return the pixels of a level, read by tiffslide."""
    return tiffslide.TiffSlide(path).zarr_group[str(level)]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_patches_of_a_level_are_its_pixels(pyramid: Path, scale: float) -> None:
    with Slide(pyramid) as slide:
        plan = slide.plan(scale, 48, 0.5)
        coords = _grid(slide, plan)
        patches = _cut(slide, plan, coords, 48)
    assert len(patches) == len(coords)
    pixels = _level(pyramid, plan.level)
    on_pixels = [c for c in coords.tolist() if all(v % plan.downsample == 0 for v in c)]
    assert len(on_pixels) > 0.7 * len(coords)
    for x, y in on_pixels:
        left, top = round(x / plan.downsample), round(y / plan.downsample)
        np.testing.assert_array_equal(patches[x, y], pixels[top : top + 48, left : left + 48])


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_whole_ratios_are_plain_means_at_any_position(one_level: Path, ratio: int) -> None:
    with Slide(one_level) as slide:
        plan = slide.plan(0.5 * ratio, 40, 0.5)
        coords = np.random.default_rng(0).integers(0, SIDE - 40 * ratio, (60, 2), endpoint=True)
        patches = _cut(slide, plan, coords, 40)
    pixels = _level(one_level, 0)
    for (x, y), patch in patches.items():
        assert np.abs(patch - _area_mean(pixels, x, y, 40 * ratio, 40)).max() < 1


@settings(max_examples=40, deadline=None)
@given(
    ratio=st.floats(1.03, 12),
    size=st.integers(16, 80),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    level=st.integers(0, 1),
)
def test_patches_are_area_means_at_their_exact_position(
    pyramid: Path, ratio: float, size: int, place: tuple[float, float], level: int
) -> None:
    downsample = 2.0**level
    footprint = min(ratio * size * downsample, float(SIDE))
    plan = ReadPlan(level, downsample, footprint, 0.5 * footprint / size)
    corner = np.floor(np.array(place) * (SIDE - footprint)).astype(np.int64)
    with Slide(pyramid) as slide:
        (patch,) = _cut(slide, plan, corner[None], size).values()
    expected = _area_mean(_level(pyramid, level), *(corner / downsample), footprint / downsample, size)
    assert _psnr(patch, expected) >= 36


def test_rounded_coordinates_do_not_blur(tmp_path: Path) -> None:
    """The pixels of a level of 341 under one of 1024 have no integer corners at level 0."""
    rng = np.random.default_rng(0)
    fine, coarse = (rng.integers(0, 256, (side, side, 3), np.uint8) for side in (1024, 341))
    path = tmp_path / "odd.tiff"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(fine, tile=(TILE, TILE), photometric="rgb", subifds=1)
        tiff.write(coarse, tile=(TILE, TILE), photometric="rgb", subfiletype=1)
    with Slide(path) as slide:
        downsample = slide.level_downsamples[1]
        assert not downsample.is_integer()
        plan = ReadPlan(1, downsample, 32 * downsample, 1.0)
        coords = np.array([[round(column * 32 * downsample), 0] for column in range(10)])
        patches = _cut(slide, plan, coords, 32)
    for column, patch in enumerate(patches.values()):
        np.testing.assert_array_equal(patch, coarse[:32, column * 32 : column * 32 + 32])


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 3.7])
def test_the_size_of_regions_hardly_matters(pyramid: Path, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with Slide(pyramid) as slide:
        plan = slide.plan(scale, 32, 0.5)
        coords = _grid(slide, plan, overlap=0.25)
        whole = _cut(slide, plan, coords, 32)
        monkeypatch.setattr("e2e_abmilx.cache.patches._BLOCK", 64)
        assert len(list(cut_patches(slide, plan, coords, 32))) > 1
        found = _cut(slide, plan, coords, 32)
    assert found.keys() == whole.keys()
    assert max(np.abs(found[corner].astype(int) - whole[corner]).mean() for corner in whole) < 0.5


@pytest.mark.parametrize("ratio", [1.0, 1.3, 2.0, 4.008, 6.012, 8.0])
def test_a_patch_cut_again_is_the_same(one_level: Path, ratio: float) -> None:
    with Slide(one_level) as slide:
        plan = ReadPlan(0, 1.0, 32 * ratio, 0.5 * ratio)
        coords = _grid(slide, plan, overlap=0.3)
        among = _cut(slide, plan, coords, 32)
        indices = np.arange(0, len(coords), 5)
        again = dict(cut_again(slide, plan, coords, indices, 32))
    assert sorted(again) == indices.tolist()
    for index, patch in again.items():
        difference = np.abs(patch.astype(int) - among[tuple(coords[index].tolist())])
        assert difference.mean() < 0.5
        assert difference.max() <= 16  # at the border, where the last squares may have fewer pixels


def test_no_coordinates_give_no_patches(pyramid: Path) -> None:
    with Slide(pyramid) as slide:
        assert not list(cut_patches(slide, slide.plan(0.5, 64, 0.5), np.empty((0, 2), np.int64), 64))


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "gastrectomy.svs", "no_mpp.tiff"])
@pytest.mark.parametrize("scales", [(1.0, 1.3), (2.0, 2.9), (4.0, 5.1)])
def test_patches_of_real_slides_are_area_means(shared: Path, name: str, scales: tuple[float, ...]) -> None:
    path = shared / "data/slides" / name
    rng = np.random.default_rng(0)
    with Slide(path) as slide:
        for scale in scales:  # in level-0 pixels
            plan = slide.plan(scale, 64, 1.0)
            coords = rng.permutation(_grid(slide, plan))[:8]
            pixels = _level(path, plan.level)
            for (x, y), patch in _cut(slide, plan, coords, 64).items():
                place = (x / plan.downsample, y / plan.downsample, plan.footprint / plan.downsample)
                assert _psnr(patch, _area_mean(pixels, *place, 64)) >= 30


def _overwrite(path: Path, start: float, data: Callable[[int], bytes]) -> None:
    """Replace the bytes of the bad tile after the first part of it."""
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[0].dataoffsets[BAD], tiff.pages[0].databytecounts[BAD]
    skipped = int(size * start)
    with open(path, "r+b") as file:
        file.seek(offset + skipped)
        file.write(data(size - skipped))


def _retag(path: Path, tag: str, value: int) -> None:
    """Change the entry of the bad tile in a tag."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        entry = tiff.pages[0].tags[tag]
        entry.overwrite([value if index == BAD else known for index, known in enumerate(entry.value)])


def _damage(path: Path, how: str) -> None:
    garbage = np.random.default_rng(0).bytes
    match how:
        case "overwritten":
            _overwrite(path, 0, garbage)
        case "second half overwritten":
            _overwrite(path, 0.5, garbage)
        case "zeroed":
            _overwrite(path, 0, bytes)
        case "second half zeroed":
            _overwrite(path, 0.5, bytes)
        case "cut short":
            _retag(path, "TileByteCounts", 3000)
        case "beyond the end":
            _retag(path, "TileOffsets", 2**31)
        case "endless":
            _retag(path, "TileByteCounts", 2**31)


@pytest.mark.parametrize("size", [96, 256])
@pytest.mark.parametrize(
    "how",
    [
        "overwritten",
        "second half overwritten",
        "zeroed",
        "second half zeroed",
        "cut short",
        "beyond the end",
        "endless",
    ],
)
def test_damage_costs_only_the_patches_on_the_tile(
    one_level: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, size: int
) -> None:
    path = tmp_path / "damaged.tiff"
    path.write_bytes(one_level.read_bytes())
    _damage(path, how)
    with Slide(one_level) as slide:
        plan = slide.plan(0.5, size, 0.5)
        coords = _grid(slide, plan)
        sound = _cut(slide, plan, coords, size)
    with Slide(path) as slide:
        found = _cut(slide, plan, coords, size)
    bad = {(x, y) for x, y in sound if 512 - size < x < 768 and 256 - size < y < 512}
    assert bad
    assert list(found) == [corner for corner in sound if corner not in bad]
    for corner, patch in found.items():
        np.testing.assert_array_equal(patch, sound[corner])
    assert f"left out {len(bad)} of" in caplog.text


def test_tiles_that_the_file_leaves_out_are_background(one_level: Path, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    path.write_bytes(one_level.read_bytes())
    _retag(path, "TileByteCounts", 0)
    with Slide(one_level) as slide:
        plan = slide.plan(0.5, 64, 0.5)
        coords = _grid(slide, plan)
        whole = _cut(slide, plan, coords, 64)
    with Slide(path) as slide:
        found = _cut(slide, plan, coords, 64)
    assert list(found) == list(whole)
    for (x, y), patch in found.items():
        is_out = 512 <= x < 768 and 256 <= y < 512
        np.testing.assert_array_equal(patch, 255 if is_out else whole[x, y])


@settings(max_examples=25, deadline=None)
@given(where=st.floats(0.05, 0.99), bit=st.integers(0, 7))
def test_a_flipped_bit_affects_one_tile_at_most(
    one_level: Path, tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    """JPEG has no checksum, so a flipped bit is seldom detected, but it never affects another tile."""
    path = tmp_path_factory.mktemp("flipped") / "flipped.tiff"
    path.write_bytes(one_level.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[0].dataoffsets[BAD], tiff.pages[0].databytecounts[BAD]
    with open(path, "r+b") as file:
        file.seek(offset + int(size * where))
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ (1 << bit)]))
    with Slide(one_level) as slide:
        plan = slide.plan(0.5, TILE, 0.5)
        coords = _grid(slide, plan)
        sound = _cut(slide, plan, coords, TILE)
    with Slide(path) as slide:
        found = _cut(slide, plan, coords, TILE)
    assert len(found) >= len(sound) - 1
    assert all((sound[corner] == patch).all() for corner, patch in found.items() if corner != (512, 256))


def test_a_truncated_file_keeps_the_patches_before_its_end(one_level: Path, tmp_path: Path) -> None:
    with tifffile.TiffFile(one_level) as tiff:
        offset, size = tiff.pages[0].dataoffsets[BAD], tiff.pages[0].databytecounts[BAD]
    path = tmp_path / "truncated.tiff"
    path.write_bytes(one_level.read_bytes()[: offset + size // 2])
    with Slide(one_level) as slide:
        plan = slide.plan(0.5, TILE, 0.5)
        coords = _grid(slide, plan)
        sound = _cut(slide, plan, coords, TILE)
    with Slide(path) as slide:
        found = _cut(slide, plan, coords, TILE)
    assert list(found) == list(sound)[:BAD]
    assert all((sound[corner] == patch).all() for corner, patch in found.items())
