"""Patch stores that take seconds to write: a few repeated textures, and one store under many names."""

import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.store import StoreWriter
from e2e_abmilx.store.codec import JPEG_QUALITY, encode_patch

TEXTURES = 128


def textures(count: int, side: int) -> NDArray[np.uint8]:
    """Return noise in the colours of H&E that takes as long to decode as tissue: 33 kB at 256 px; real slides 31 to 41.

    Args:
        count: Number of textures.
        side: Side, pixels, a multiple of 8.

    Returns:
        Shape ``(count, side, side, 3)``.
    """
    rng = np.random.default_rng(0)
    patches = np.empty((count, side, side, 3), np.uint8)
    for patch in patches:
        blobs = np.kron(rng.random((side // 8, side // 8)) ** 4, np.ones((8, 8)))[..., None]
        colours = (1 - blobs) * (225, 150, 195) + blobs * (90, 60, 140)
        patch[:] = np.clip(colours + rng.normal(0, 16, (side, side, 1)), 0, 255)
    return patches


def write_slide(path: Path, patches: int, side: int, *, mpp: tuple[float, ...] = (0.5, 1.0)) -> None:
    """Write a store with a number of patches per scale, arranged in a square."""
    jpegs = [encode_patch(patch, JPEG_QUALITY, "444") for patch in textures(min(TEXTURES, patches), side)]
    numbers = np.arange(patches)
    columns = int(np.ceil(patches**0.5))
    with StoreWriter(path, mpp, patch_size=side) as writer:
        for scale in range(len(mpp)):
            coords = np.stack([numbers % columns, numbers // columns], 1) * side * 2**scale
            writer.write_encoded((jpegs[number % len(jpegs)] for number in numbers), coords, scale)


def write_cohort(folder: Path, *, cases: int, patches: int, side: int) -> Path:
    """Write stores and ``labels.csv`` of cases of two classes; all stores are links to the same files.

    Args:
        folder: Folder to write.
        cases: Number of training cases with one slide each; two validation cases are added.
        patches: Patches per slide at each of two scales.
        side: Side of a patch, pixels.

    Returns:
        The label table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_slide(folder / "s0.zarr", patches, side)
    repeat_slide(folder / "s0.zarr", [folder / f"s{number}.zarr" for number in range(1, cases + 2)])
    rows = [f"s{number},{number % 2},{'val' if number < 2 else 'train'}" for number in range(cases + 2)]
    labels = folder / "labels.csv"
    labels.write_text("\n".join(["slide,label,split", *rows]), encoding="utf-8")
    return labels


def repeat_slide(store: Path, others: list[Path]) -> None:
    """Link the files of a store to other names."""
    for other in others:
        shutil.copytree(store, other, copy_function=os.link)
