"""Small stores for the tests of this folder."""

import math
from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.store import StoreWriter, scale_writer

P = 16
COUNTS = (20, 0, 5)
MPP = (0.5, 1.0, math.nan)
ATTRIBUTES = {"slide_mpp": 0.25, "slide_mpp_source": "aperio", "objective": None, "scales": [{"level": 0}]}
TISSUE = np.indices((20, 30)).sum(axis=0) % 7 > 2


def textures(count: int, side: int = P, seed: int = 0) -> np.ndarray:
    """Return smooth coloured patches, each different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = rng.random((4, count, 1, 1, 3))
    tilted = waves[0] * x[None, ..., None] + waves[1] * y[None, ..., None]
    return np.uint8(255 * (0.5 + 0.5 * np.sin(3 * tilted + 6 * waves[2])) * (0.6 + 0.4 * waves[3]))


def grid(count: int) -> np.ndarray:
    """Return coordinates, some of them negative."""
    return np.stack([np.arange(count) * 7 - 3, np.arange(count) * 11], axis=1)


def psnr(stored: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each patch, dB."""
    return 10 * np.log10(255**2 / np.mean((stored.astype(float) - patches) ** 2, axis=(1, 2, 3)))


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_whole(path: Path) -> Path:
    """Write three scales in shards of seven patches, a thumbnail and a tissue mask."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_writer, "PATCHES_PER_SHARD", 7)
        with StoreWriter(path, MPP, patch_size=P, attributes=ATTRIBUTES) as writer:
            for scale, count in enumerate(COUNTS):
                writer.write(textures(count, seed=scale), grid(count), scale)
            writer.write_thumbnail(textures(1, side=30)[0, :20])
            writer.write_tissue(TISSUE)
    return path
