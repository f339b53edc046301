"""The cross-check detects a reader that decodes wrongly, and raises no false alarm."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.crosscheck import CheckError
from e2e_abmilx.cache.imports import import_coords
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest
from e2e_abmilx.slides import tiles
from e2e_abmilx.synthetic import draw_slide

Fault = Callable[[pytest.MonkeyPatch], None]


def _wrong_colours(patch: pytest.MonkeyPatch) -> None:
    """Leave tiles in YCbCr, as tiffslide does with those of compression 33003."""
    right = tiles.TiledLevel._tile

    def wrong(self: tiles.TiledLevel, index: int) -> np.ndarray:
        rgb = right(self, index).astype(float)
        y = rgb @ (0.299, 0.587, 0.114)
        ycc = np.stack([y, 128 + 0.564 * (rgb[..., 2] - y), 128 + 0.713 * (rgb[..., 0] - y)], -1)
        return ycc.round().clip(0, 255).astype(np.uint8)

    patch.setattr(tiles.TiledLevel, "_tile", wrong)


def _swapped_colours(patch: pytest.MonkeyPatch) -> None:
    right = tiles.TiledLevel._tile
    patch.setattr(tiles.TiledLevel, "_tile", lambda self, index: right(self, index)[..., ::-1])


def _shifted_tiles(patch: pytest.MonkeyPatch) -> None:
    """Show the neighbour in place of each tile."""
    right = tiles.TiledLevel._tile
    patch.setattr(tiles.TiledLevel, "_tile", lambda self, index: right(self, max(0, index - 1)))


def _tiles_moved_by_some_pixels(patch: pytest.MonkeyPatch) -> None:
    """Move the pixels of each tile, as if overlapping tiles were laid side by side."""
    right = tiles.TiledLevel._tile
    patch.setattr(tiles.TiledLevel, "_tile", lambda self, index: np.roll(right(self, index), (5, 9), axis=(0, 1)))


def _other_jpeg_tables(patch: pytest.MonkeyPatch) -> None:
    """Decode with other JPEG tables than the file's own."""
    stream = imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8), level=5)
    others = stream[: stream.index(b"\xff\xc0")] + b"\xff\xd9"
    huffman = stream[stream.index(b"\xff\xc4") : stream.index(b"\xff\xda")]
    others = others[:-2] + huffman + b"\xff\xd9"
    right = tiles._Plane

    def with_others(offsets: Any, sizes: Any, first: int, tables: dict[str, Any]) -> tiles._Plane:
        return right(offsets, sizes, first, tables | {"jpegtables": others} if tables else tables)

    patch.setattr(tiles, "_Plane", with_others)


FAULTS = [_wrong_colours, _swapped_colours, _shifted_tiles, _tiles_moved_by_some_pixels, _other_jpeg_tables]


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.__name__)
def fault(request: pytest.FixtureRequest) -> Fault:
    return request.param


def test_planted_faults_are_detected(
    shared: Path, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    slide = shared / "data/slides/CMU-1-Small-Region.svs"
    (row,) = cache_slides([slide], tmp_path, mpp=(0.5, 1.0), workers=1)
    assert row.status == "failed"
    assert "the two readers disagree" in row.reason
    assert row.mean_difference is not None
    assert row.mean_difference > 4
    assert f"by {row.mean_difference:.1f} grey levels" in row.reason
    assert f"by {row.largest_difference} at most" in row.reason
    assert (row.read_by, row.checked_by, row.checked) == ("tifffile", "OpenSlide", 16)
    assert read_manifest(tmp_path)[row.slide] == row
    assert not [path.name for path in tmp_path.rglob("*") if row.slide in path.name]  # neither store nor picture


def test_without_the_check_the_faults_are_not_detected(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the cross-check can see these faults."""
    _wrong_colours(monkeypatch)
    slide = shared / "data/slides/CMU-1-Small-Region.svs"
    (row,) = cache_slides([slide], tmp_path, mpp=(0.5,), min_tissue=0.0, check_patches=0, workers=1)
    assert (row.status, row.checked, row.checked_by) == ("done", 0, "nobody: check_patches is 0")


def test_missing_jpeg_tables_are_refused(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.svs"
    path.write_bytes((shared / "data/slides/CMU-1-Small-Region.svs").read_bytes())
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tag = tiff.pages[0].tags["JPEGTables"]
        tiff.filehandle.seek(tag.offset)
        tiff.filehandle.write((65000).to_bytes(2, "little"))  # a private tag, which is ignored
    (row,) = cache_slides([path], tmp_path / "out", mpp=(0.5,), workers=1)
    assert row.status == "failed"
    assert "cannot be read" in row.reason


def test_a_fault_of_one_slide_stops_no_other(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = tiles.TiledLevel._tile

    def wrong(self: tiles.TiledLevel, index: int) -> np.ndarray:
        pixels = right(self, index)
        return pixels[..., ::-1] if "slide-001" in self._file.name else pixels

    monkeypatch.setattr(tiles.TiledLevel, "_tile", wrong)
    files = sorted((cohort / "slides").glob("*.tiff"))[:3]
    rows = cache_slides(files, tmp_path, patch_size=64, workers=1)
    assert [row.status for row in rows] == ["done", "failed", "done"]


def _assert_agreement(rows: list[CachedSlide], patches: int) -> None:
    for row in rows:
        assert (row.status, row.read_by, row.checked_by, row.checked) == ("done", "tifffile", "OpenSlide", patches)
        assert row.mean_difference is not None
        assert row.mean_difference < 2


def test_no_false_alarm_on_real_slides(shared: Path, tmp_path: Path) -> None:
    slides = shared / "data/slides"
    names = ("CMU-1-Small-Region.svs", "no_mpp.tiff")
    rows = cache_slides([slides / name for name in names], tmp_path / "a", assume_mpp=0.25, workers=1)
    rows += cache_slides([slides / "gastrectomy.svs"], tmp_path / "b", mpp=(3.5, 6.0), workers=1)
    some = sorted((shared / "data/ucsb_breast/slides").iterdir())[:6]
    rows += cache_slides(some, tmp_path / "c", mpp=(0.2, 0.5), patch_size=96, assume_mpp=0.2, workers=1)
    _assert_agreement([row for row in rows if row.num_patches > 40], 16)


@pytest.mark.parametrize("mpp", [(2.0, 3.0), (2.5, 4.0)])
def test_no_false_alarm_far_between_levels(shared: Path, tmp_path: Path, mpp: tuple[float, ...]) -> None:
    """Squares of pixels are averaged at these scales, and patches cut alone must average the same squares."""
    slide = shared / "data/slides/CMU-1-Small-Region.svs"
    (row,) = cache_slides([slide], tmp_path, mpp=mpp, patch_size=32, workers=1)
    _assert_agreement([row], 16)


def test_files_that_openslide_reads_otherwise_are_not_compared(tmp_path: Path) -> None:
    """OpenSlide takes the first page for the slide: a single channel, or the macro image."""
    pixels = draw_slide(seed=1, lesion_fraction=0.4, side=512)[0]
    tags = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "tile": (128, 128)}
    planes = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "channels.ome.tif", planes, photometric="minisblack", metadata={"axes": "CYX"}, **tags)
    with tifffile.TiffWriter(tmp_path / "second.tif") as tiff:
        tiff.write(pixels[:512, :512] // 2, photometric="rgb", metadata=None, subfiletype=1, **tags)
        tiff.write(np.pad(pixels, ((0, 16), (0, 0), (0, 0))), photometric="rgb", metadata=None, **tags)
    rows = cache_slides(tmp_path, tmp_path / "out", mpp=(0.5,), patch_size=64, workers=1)
    assert [(row.status, row.checked_by) for row in rows] == [("done", "nobody: no other reader reads this slide")] * 2


@pytest.mark.slow
@pytest.mark.parametrize("quality", [5, 90])
def test_no_false_alarm_on_all_of_ucsb(shared: Path, tmp_path: Path, quality: int) -> None:
    slides = shared / "data/ucsb_breast/slides"
    rows = cache_slides(
        slides, tmp_path, mpp=(0.2, 0.37), patch_size=64, assume_mpp=0.2, quality=quality, check_patches=30, workers=2
    )
    assert len(rows) == 58
    _assert_agreement(rows, 60)


def test_levels_that_the_second_reader_lacks_are_compared_loosely(stores: Path) -> None:
    """The synthetic pyramids store their levels as SubIFDs, which OpenSlide does not read."""
    rows = read_manifest(stores).values()
    assert len(rows) == 24
    for row in rows:
        some = sum(min(8, int(number)) for number in row.patches.split(";"))
        assert (row.status, row.checked_by, row.checked) == ("done", "OpenSlide", some)


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_patches_is_an_option(cohort: Path, tmp_path: Path, count: int) -> None:
    slide = cohort / "slides/slide-000.tiff"
    (row,) = cache_slides([slide], tmp_path, patch_size=64, check_patches=count, workers=1)
    assert row.checked == 2 * count
    with pytest.raises(CheckError, match="check_patches is -1"):
        cache_slides([slide], tmp_path, check_patches=-1)


def test_a_slide_that_only_one_reader_reads_says_so(tmp_path: Path) -> None:
    pixels = draw_slide(seed=1, lesion_fraction=0.4, side=512)[0]
    tags = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(tmp_path / "strips.tif", pixels, photometric="rgb", **tags)
    cmyk = 255 - np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    tifffile.imwrite(tmp_path / "cmyk.tif", cmyk, photometric="separated", tile=(128, 128), **tags)
    rows = cache_slides(tmp_path, tmp_path / "out", mpp=(0.5,), patch_size=64, workers=1)
    assert [(row.slide, row.read_by) for row in rows] == [("cmyk", "OpenSlide"), ("strips", "tifffile")]
    assert {(row.status, row.checked_by, row.checked) for row in rows} == {
        ("done", "nobody: no other reader reads this slide", 0)
    }


def test_imported_coordinates_are_checked_too(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with h5py.File(tmp_path / "slide-000_patches.h5", "w") as file:
        coords = file.create_dataset("coords", data=np.array([[x, y] for y in (64, 192) for x in (64, 128, 256)]))
        coords.attrs.update({"patch_size": 64, "patch_size_level0": 64})
    (row,) = import_coords(tmp_path, cohort / "slides", tmp_path / "right", check_patches=4, workers=1)
    assert (row.status, row.checked_by, row.checked) == ("done", "OpenSlide", 4)
    _swapped_colours(monkeypatch)
    (row,) = import_coords(tmp_path, cohort / "slides", tmp_path / "wrong", workers=1)
    assert row.status == "failed"
    assert "the two readers disagree" in row.reason
    with pytest.raises(CheckError, match="check_patches is -2"):
        import_coords(tmp_path, cohort / "slides", tmp_path / "no", check_patches=-2)
