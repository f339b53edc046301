"""Slides cut at the coordinates of TRIDENT and CLAM show the same squares of the slide."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from foreign_files import lattice, write_clam, write_trident
from stored_patches import assert_coords_are_right, snapshot

from e2e_abmilx.cache import CacheError, cache_slides, is_slide_of, slide_path
from e2e_abmilx.cache.imports import import_coords
from e2e_abmilx.store import PatchStore


@pytest.mark.parametrize("overlap", [0, 16])
def test_coordinates_of_trident(slides: Path, tmp_path: Path, overlap: int) -> None:
    coords = lattice(128 - 2 * overlap)
    for name in ("a", "b.two_patches"):
        write_trident(tmp_path / f"h5/{name}_patches.h5", coords, overlap=overlap)
    rows = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=2)
    assert [(row.slide, row.status, row.patches) for row in rows] == [
        ("a", "done", "25"),
        ("b.two_patches", "done", "25"),
    ]
    assert (rows[0].mpp, rows[0].mpp_source) == (pytest.approx(0.5), "TIFF resolution tags")
    assert slide_path(tmp_path / "out", "a") == slides / "a.tiff"
    assert is_slide_of(PatchStore(tmp_path / "out/a.zarr").attributes["fingerprint"], slides / "a.tiff")
    store = PatchStore(tmp_path / "out/a.zarr")
    assert (store.scales, store.patch_size) == ((1.0,), 64)
    assert sorted(map(tuple, store.coords())) == sorted(map(tuple, coords))
    assert store.attributes["footprints"] == [128]
    assert_coords_are_right(slides / "a.tiff", store)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_coordinates_of_clam(slides: Path, tmp_path: Path, level: int) -> None:
    coords = lattice(64 * 2**level, count=3)
    write_clam(tmp_path / "h5/a.h5", coords, level=level)
    (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    assert row.status == "done", row.reason
    store = PatchStore(tmp_path / "out/a.zarr")
    assert store.scales == (0.5 * 2**level,)
    assert sorted(map(tuple, store.coords())) == sorted(map(tuple, coords))
    assert store.attributes["footprints"] == [64 * 2**level]
    # level 2 was shrunk and encoded twice, and the corners lie between its pixels
    assert_coords_are_right(slides / "a.tiff", store, decibels=30 if level < 2 else 28)


def test_coordinates_of_clam_with_custom_downsample(slides: Path, tmp_path: Path) -> None:
    write_clam(tmp_path / "h5/a.h5", lattice(256, count=2), level=1, custom_downsample=2)
    (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    store = PatchStore(tmp_path / "out/a.zarr")
    assert (row.status, store.scales, store.attributes["footprints"]) == ("done", (2.0,), [256])
    assert_coords_are_right(slides / "a.tiff", store, decibels=28)


def test_other_scales_are_cut_around_the_same_patches(slides: Path, tmp_path: Path) -> None:
    coords = lattice(128)
    write_trident(tmp_path / "h5/a_patches.h5", coords)
    import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=("10x", 2.0), workers=1)
    store = PatchStore(tmp_path / "out/a.zarr")
    assert store.scales == (1.0, 2.0)
    assert sorted(map(tuple, store.coords(0))) == sorted(map(tuple, coords))
    assert_coords_are_right(slides / "a.tiff", store)
    centres, corners = coords + 64, store.coords(1)
    inside = (corners[:, None] <= centres) & (centres < corners[:, None] + 256)
    assert inside.all(axis=2).any(axis=0).all()  # every fine patch lies in a coarse one
    assert inside.all(axis=2).any(axis=1).all()  # and every coarse patch holds a fine one


def test_a_pyramid_level_may_be_asked_for(slides: Path, tmp_path: Path) -> None:
    write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
    import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=("level1", "level2"), workers=1)
    assert PatchStore(tmp_path / "out/a.zarr").scales == (1.0, 2.0)


def test_cached_and_imported_stores_are_not_confused(slides: Path, tmp_path: Path) -> None:
    write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
    cache_slides([slides / "a.tiff"], tmp_path / "cut", patch_size=64)
    with pytest.raises(CacheError, match=r"coords was None and is now a_patches\.h5"):
        import_coords(tmp_path / "h5", slides, tmp_path / "cut")
    import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    with pytest.raises(CacheError, match="patch_size was None and is now 64"):
        cache_slides([slides / "a.tiff"], tmp_path / "out", patch_size=64)


def test_coordinates_on_a_real_slide(shared: Path, tmp_path: Path) -> None:
    file = shared / "data/slides/CMU-1-Small-Region.svs"
    (tmp_path / "slides.csv").write_text(f"wsi\n{file}\n")
    size = {"level0_width": 2220, "level0_height": 2967}
    write_trident(tmp_path / "h5/CMU-1-Small-Region_patches.h5", lattice(400), **size, patch_size_level0=256)
    (row,) = import_coords(tmp_path / "h5", tmp_path / "slides.csv", tmp_path / "out", workers=1)
    assert row.status == "done", row.reason
    store = PatchStore(tmp_path / f"out/{row.slide}.zarr")
    assert store.scales == (2.0,)  # 0.499 µm/px, four times coarser
    assert store.attributes["patch_mpp"] == [pytest.approx(4 * 0.499)]
    assert_coords_are_right(file, store)


def test_a_finer_scale_has_the_same_centres(slides: Path, tmp_path: Path) -> None:
    coords = lattice(128)
    write_trident(tmp_path / "h5/a_patches.h5", coords)
    import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=(0.5,), workers=1)
    store = PatchStore(tmp_path / "out/a.zarr")
    assert sorted(map(tuple, store.coords())) == sorted(map(tuple, coords + 32))
    assert_coords_are_right(slides / "a.tiff", store)


def test_overhanging_patches_are_moved_inwards(slides: Path, tmp_path: Path) -> None:
    write_clam(tmp_path / "h5/a.h5", np.array([[960, 100], [1000, 1023], [100, 100]]))
    (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    assert row.patches == "3"
    store = PatchStore(tmp_path / "out/a.zarr")
    assert sorted(map(tuple, store.coords())) == [(100, 100), (896, 100), (896, 896)]
    assert_coords_are_right(slides / "a.tiff", store)


def test_a_second_call_redoes_nothing_and_refuses_changes(slides: Path, tmp_path: Path) -> None:
    write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
    rows = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    before = snapshot(tmp_path / "out")
    assert import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1) == rows
    assert snapshot(tmp_path / "out") == before
    with pytest.raises(CacheError, match=r"mpp was \[\] and is now \[2\.0\]"):
        import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=(2.0,), workers=1)
    write_trident(tmp_path / "h5/a_patches.h5", lattice(130))
    with pytest.raises(CacheError, match="fingerprints"):
        import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)


def test_a_slide_without_resolution_needs_assume_mpp(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    pixels = np.full((1024, 1024, 3), 200, np.uint8)
    tifffile.imwrite(tmp_path / "slides/a.tiff", pixels, tile=(256, 256), photometric="rgb")
    write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
    (row,) = import_coords(tmp_path / "h5", tmp_path / "slides", tmp_path / "out", workers=1)
    assert "assume_mpp" in row.reason
    (row,) = import_coords(tmp_path / "h5", tmp_path / "slides", tmp_path / "out", assume_mpp=0.5, workers=1)
    assert (row.status, row.mpp, row.mpp_source) == ("done", 0.5, "assumed")
    (tmp_path / "slides/list.csv").write_text("slide,mpp\na.tiff,0.25\n")
    (row,) = import_coords(tmp_path / "h5", tmp_path / "slides/list.csv", tmp_path / "out2", workers=1)
    assert (row.mpp, row.mpp_source) == (0.25, "override")
    assert PatchStore(tmp_path / "out2/a.zarr").scales == (0.5,)
