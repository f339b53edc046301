"""The slide of a store is found again, and no other file passes for it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stored_patches import snapshot

from e2e_abmilx.cache import cache_slides, is_slide_of, slide_path
from e2e_abmilx.store import PatchStore, write_store


@pytest.fixture
def slides(cohort: Path, tmp_path: Path) -> Path:
    """A folder of two slides with an odd name."""
    folder = tmp_path / 'my, slides "é"'
    folder.mkdir()
    for name in ("slide-001", "slide-002"):
        shutil.copy(cohort / f"slides/{name}.tiff", folder)
    return folder


def _cache(slides: Path, out: Path) -> None:
    cache_slides(slides, out, mpp=(1.0,), patch_size=64, workers=1)


def test_a_cache_knows_its_slides(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(slides.parent)
    _cache(Path(slides.name), tmp_path / "out")  # a relative path is recorded as an absolute one
    assert slide_path(tmp_path / "out", "slide-001") == slides / "slide-001.tiff"
    assert slide_path(tmp_path / "out", "slide-009") is None
    assert slide_path(tmp_path / "none", "slide-001") is None


def test_caching_again_records_where_slides_are_now(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _cache(slides, out)
    table = pd.read_csv(out / "manifest.csv").drop(columns="path")  # as an earlier release wrote it
    table.to_csv(out / "manifest.csv", index=False)
    assert slide_path(out, "slide-001") is None
    before = snapshot(out / "slide-001.zarr")
    _cache(slides, out)
    assert slide_path(out, "slide-001") == slides / "slide-001.tiff"
    moved = slides.rename(tmp_path / "moved")
    assert slide_path(out, "slide-002") == slides / "slide-002.tiff"
    _cache(moved, out)
    assert slide_path(out, "slide-002") == moved / "slide-002.tiff"
    assert snapshot(out / "slide-001.zarr") == before


def test_a_folder_whose_name_is_not_utf_8(slides: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        slides.rename(odd)
    except OSError:
        pytest.skip("the file system allows only UTF-8")
    _cache(odd, tmp_path / "out")
    assert slide_path(tmp_path / "out", "slide-001") is None


def test_only_the_slide_itself_is_the_slide_of_a_store(slides: Path, tmp_path: Path) -> None:
    _cache(slides, tmp_path / "out")
    recorded = PatchStore(tmp_path / "out/slide-001.zarr").attributes["fingerprint"]
    file = slides / "slide-001.tiff"
    assert is_slide_of(recorded, file)
    assert not is_slide_of(recorded, slides / "slide-002.tiff")
    assert not is_slide_of(recorded, slides / "slide-009.tiff")
    assert not is_slide_of(recorded, slides)
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert not is_slide_of(recorded, file)


def test_imported_patches_have_no_slide(tmp_path: Path) -> None:
    write_store(tmp_path / "own.zarr", {0.5: (np.zeros((2, 8, 8, 3), np.uint8), None)})
    (tmp_path / "own.tiff").write_bytes(b"a slide")
    assert not is_slide_of(PatchStore(tmp_path / "own.zarr").attributes.get("fingerprint"), tmp_path / "own.tiff")
    assert slide_path(tmp_path, "own") is None
