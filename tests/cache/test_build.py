"""The job of one slide: patches contain tissue, are cut at the right position, and damage costs only its patches."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from stored_patches import assert_coords_are_right

from e2e_abmilx.cache import CacheError, cache_slides
from e2e_abmilx.store import PatchStore
from e2e_abmilx.synthetic import write_slide


def test_every_patch_contains_tissue(stores: Path) -> None:
    for path in sorted(stores.glob("*.zarr"))[:6]:
        store = PatchStore(path)
        patches = store.read(np.arange(store.num_patches()))
        assert (patches.mean(axis=(1, 2)).min(axis=1) < 225).all()  # bare glass is off-white


@pytest.mark.parametrize("mpp", [(0.5, 1.0), (0.7, 1.9), (1.0, 4.0)])
def test_scales_between_levels_are_right(tmp_path: Path, mpp: tuple[float, ...]) -> None:
    slide_file = tmp_path / "slides/one.tiff"
    slide_file.parent.mkdir()
    write_slide(slide_file, seed=5, lesion_fraction=0.2, side=1024)
    cache_slides([slide_file], tmp_path / "out", mpp=mpp, patch_size=32)
    assert_coords_are_right(slide_file, PatchStore(tmp_path / "out/one.zarr"), decibels=28)


@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", (0.5, 1.0)), ("gastrectomy.svs", (3.0, 6.0))])
def test_patches_of_real_slides_are_right(shared: Path, tmp_path: Path, name: str, mpp: tuple[float, ...]) -> None:
    (row,) = cache_slides([shared / "data/slides" / name], tmp_path, mpp=mpp)
    assert (row.status, row.unreadable) == ("done", 0)
    assert_coords_are_right(shared / "data/slides" / name, PatchStore(tmp_path / f"{row.slide}.zarr"))


def test_unreadable_patches_are_left_out_and_counted(cohort: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tiff"
    shutil.copy(cohort / "slides/slide-002.tiff", damaged)
    with tifffile.TiffFile(damaged) as file:
        page = file.pages[0]
        offset, size = page.dataoffsets[0], page.databytecounts[0]
    with open(damaged, "r+b") as file:
        file.seek(offset)
        file.write(os.urandom(size))
    (row,) = cache_slides([damaged], tmp_path / "out", patch_size=64, min_tissue=0.0)
    assert row.status == "done"
    store = PatchStore(tmp_path / "out/damaged.zarr")
    assert row.unreadable == 16  # the overwritten tile of 256 px has 4 × 4 patches of 64 px
    assert not np.any((store.coords() < 256).all(axis=1))


def test_a_damaged_tile_of_a_slide_without_pyramid_costs_only_its_patches(shared: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.svs"
    shutil.copy(shared / "data/slides/CMU-1-Small-Region.svs", damaged)
    with tifffile.TiffFile(damaged, mode="r+b") as file:
        page = file.pages[0]  # 10 tiles of 240 px in a row
        file.filehandle.seek(page.dataoffsets[63])
        file.filehandle.write(bytes(page.databytecounts[63]))
    (row,) = cache_slides([damaged], tmp_path / "out", mpp=(0.499,), patch_size=120)
    (whole,) = cache_slides(
        [shared / "data/slides/CMU-1-Small-Region.svs"], tmp_path / "out", mpp=(0.499,), patch_size=120
    )
    assert row.status == "done"
    assert whole.num_patches - 9 <= row.num_patches < whole.num_patches
    places = PatchStore(tmp_path / "out/damaged.zarr").coords()
    assert not np.any((places > (600, 1320)).all(axis=1) & (places < (960, 1680)).all(axis=1))


def test_a_dry_run_estimates_patches_and_bytes(cohort: Path, tmp_path: Path) -> None:
    slide = cohort / "slides/slide-000.tiff"
    table = tmp_path / "slides.csv"
    table.write_text(f"slide,mpp\n{slide},0.25\n")
    planned = cache_slides(table, tmp_path / "out", mpp=("20x",), patch_size=64, dry_run=True)
    assert not (tmp_path / "out").exists()
    (row,) = cache_slides(table, tmp_path / "out", mpp=("20x",), patch_size=64)
    assert (row.mpp, row.mpp_source) == (0.25, "override")
    store = PatchStore(tmp_path / "out/slide-000.zarr")
    assert store.scales == (0.5,)
    assert store.attributes["footprints"] == [128.0]  # 64 px of 0.5 µm, on a slide of 0.25 µm/px
    assert planned[0].patches == row.patches
    shards = sum(path.stat().st_size for path in (store.path / "0/patches").glob("c.*"))
    assert planned[0].bytes == pytest.approx(shards, rel=0.25)
    with pytest.raises(CacheError, match=r"override_mpp was 0\.25 and is now None"):
        cache_slides(slide, tmp_path / "out", mpp=("20x",), patch_size=64)
