"""Stores hold the hash of their slide's thumbnail; for older stores it is computed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.thumbnails import HASH, read_thumbnail_hash
from e2e_abmilx.slides import Slide
from e2e_abmilx.slides.duplicates import SAME_SLIDE, find_same, hash_distance
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.store.format import HEADER, add_metadata_checksum


def _without_hash(store: Path, copy: Path) -> Path:
    """Copy a store as an earlier release would have made it."""
    shutil.copytree(store, copy)
    metadata = json.loads((copy / "zarr.json").read_text())
    del metadata["attributes"][HASH], metadata["attributes"][HEADER]["crc32c"]
    (copy / "zarr.json").write_text(json.dumps(metadata))
    add_metadata_checksum(copy / "zarr.json")
    return copy


def test_the_hash_of_an_older_store_is_computed(stores: Path, tmp_path: Path) -> None:
    for path in sorted(stores.glob("*.zarr"))[:8]:
        old = PatchStore(_without_hash(path, tmp_path / path.name))
        assert HASH not in old.attributes
        stored, computed = PatchStore(path).attributes[HASH], read_thumbnail_hash(old)
        assert computed is not None
        assert read_thumbnail_hash(PatchStore(path)) == stored
        assert hash_distance(stored, computed) < SAME_SLIDE / 2  # JPEG has changed the stored thumbnail


def test_a_store_of_the_first_release_has_a_hash_or_none() -> None:
    store = PatchStore(Path(__file__).parents[1] / "made_by_0_1/slide.zarr")
    assert HASH not in store.attributes
    assert read_thumbnail_hash(store) is None  # its thumbnail shows no tissue


def test_older_stores_are_used_on(cohort: Path, stores: Path, tmp_path: Path) -> None:
    old = _without_hash(stores / "slide-000.zarr", tmp_path / "slide-000.zarr")
    before = (old / "zarr.json").read_bytes()
    (row,) = cache_slides([cohort / "slides/slide-000.tiff"], tmp_path, mpp=(0.5, 1.0), patch_size=64)
    assert row.status == "done"
    assert (old / "zarr.json").read_bytes() == before


def test_stores_without_a_thumbnail_have_no_hash(tmp_path: Path) -> None:
    store = write_store(tmp_path / "patches.zarr", {0.5: (np.zeros((2, 32, 32, 3), np.uint8), None)})
    assert read_thumbnail_hash(store) is None


def test_a_hash_that_cannot_be_given_is_not_computed_again(tmp_path: Path) -> None:
    patches = {0.5: (np.zeros((2, 32, 32, 3), np.uint8), None)}
    assert read_thumbnail_hash(write_store(tmp_path / "blank.zarr", patches, attributes={HASH: None})) is None


@pytest.mark.parametrize("turns", [0, 1])
def test_a_renamed_copy_is_found_among_the_stores(turns: int, cohort: Path, stores: Path, tmp_path: Path) -> None:
    """The copy is saved as a JPEG TIFF of lower quality, half the size and perhaps turned, and cached otherwise."""
    with Slide(cohort / "slides/slide-007.tiff") as slide:
        pixels = np.rot90(slide.read_level(0, 0, 0, *slide.size), turns)
    Image.fromarray(pixels).reduce(2).save(tmp_path / "other.tiff", compression="jpeg", quality=50)
    cache_slides([tmp_path / "other.tiff"], tmp_path / "out", mpp=(1.0,), patch_size=32, assume_mpp=1.0)
    hashes = {path.stem: read_thumbnail_hash(PatchStore(path)) for path in stores.glob("*.zarr")}
    known = {name: found for name, found in hashes.items() if found}
    assert len(known) == 24
    copy = read_thumbnail_hash(PatchStore(tmp_path / "out/other.zarr"))
    assert copy is not None
    assert list(find_same(known, [copy])) == ["slide-007"]
