"""Compare stored patches with their slide."""

import csv
import math
from pathlib import Path

import numpy as np
from PIL import Image

from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 images, dB."""
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b.astype(float)) ** 2).mean(), 1e-9)))


def assert_coords_are_right(slide_file: Path, store: PatchStore, decibels: float = 30, most: int = 25) -> None:
    """Assert that patches, at most some drawn at random per scale, lie inside the slide and show what is there."""
    rng = np.random.default_rng(0)
    with Slide(slide_file) as slide:
        for scale in range(len(store.scales)):
            count = store.num_patches(scale)
            assert count, f"no patch at scale {scale}"
            for index in rng.choice(count, min(count, most), replace=False):
                stored = store.read([index], scale)[0]
                assert psnr(stored, _reread(slide, store, scale, index)) >= decibels


def _reread(slide: Slide, store: PatchStore, scale: int, index: int) -> np.ndarray:
    """Read the whole footprint of a patch from level 0 and average it down."""
    x, y = store.coords(scale)[index].tolist()
    side, (width, height) = store.attributes["footprints"][scale], slide.size
    assert min(x, y) >= 0
    assert x + side <= width
    assert y + side <= height
    whole = math.ceil(side)
    region = Image.fromarray(slide.read_level(0, x, y, min(whole, width - x), min(whole, height - y)))
    box = (0, 0, min(side, region.width), min(side, region.height))
    return np.asarray(region.resize((store.patch_size, store.patch_size), Image.Resampling.HAMMING, box=box))


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return size and modification time of everything in a folder's stores."""
    found = {path: path.stat() for path in folder.glob("*.zarr/**/*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def manifest_rows(out: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a manifest as they are in the file, by slide."""
    with open(out / "manifest.csv", newline="", encoding="utf-8") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def assert_same_stores(expected: Path, found: Path) -> None:
    """Assert that every file of every store is the same, byte for byte."""
    for one in sorted(expected.glob("*.zarr")):
        files = sorted(path.relative_to(expected) for path in one.rglob("*") if path.is_file())
        other = found / one.name
        assert files == sorted(path.relative_to(found) for path in other.rglob("*") if path.is_file())
        assert all((expected / file).read_bytes() == (found / file).read_bytes() for file in files)
