"""Lung tiles with their classes, grey and rank-equalised or in colour, split by original image."""

import csv
import zlib
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.errors import InputError

TISSUES = ("adenocarcinoma", "squamous", "normal")  # a witness's place is its bag's label
NORMAL = TISSUES.index("normal")
SOURCE = Path(__file__).parents[3] / "shared/data/lc25000_lung"
#: Fraction of the original images of each class that belong to each split, whatever the number of bags.
SHARES = {"train": 0.5, "val": 0.15, "test": 0.35}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Pool(NamedTuple):
    """Numbers of the tiles of one split, of each tissue in the order of ``TISSUES``."""

    by_tissue: tuple[NDArray[np.int64], ...]


class Tiles:
    """The tiles of a folder with ``tiles.zip`` and ``tiles.csv`` (tile, tissue, group).

    Attributes:
        names: File name of each tile, T in number.
        tissue: Tissue of each tile, as a place in ``TISSUES``, shape ``(T,)``.
        group: Original image that each tile was augmented from, shape ``(T,)``.
        checksum: CRC-32 of the table.

    Args:
        folder: The folder.

    Raises:
        InputError: A file is missing, or a tissue is unknown.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        missing = [name for name in ("tiles.csv", "tiles.zip") if not (self.folder / name).is_file()]
        if missing:
            raise InputError(f"{folder} lacks {missing[0]}; give the folder that holds tiles.csv and tiles.zip")
        text = (self.folder / "tiles.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        unknown = sorted({row["tissue"] for row in rows} - set(TISSUES))
        if unknown:
            raise InputError(f"tiles.csv has the tissue {unknown[0]!r}; it must be one of {', '.join(TISSUES)}")
        self.names = [row["tile"] for row in rows]
        self.tissue = np.array([TISSUES.index(row["tissue"]) for row in rows])
        self.group = np.array([row["group"] for row in rows])
        self.checksum = zlib.crc32(text.encode())

    def split(self, seed: int) -> dict[str, Pool]:
        """Return the tiles of each split; all tiles of an original image are in the same split."""
        pools: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SHARES}
        ends = np.cumsum(list(SHARES.values()))[:-1]
        for tissue in range(len(TISSUES)):
            groups = np.unique(self.group[self.tissue == tissue])
            # the generators of bags have the place of a split as second number, so this must be another
            shuffled = np.random.default_rng([seed, len(SHARES), tissue]).permutation(groups)
            parts = np.split(shuffled, np.rint(ends * len(groups)).astype(int))
            for split, part in zip(SHARES, parts, strict=True):
                pools[split].append(np.flatnonzero((self.tissue == tissue) & np.isin(self.group, part)))
        return {split: Pool(tuple(parts)) for split, parts in pools.items()}

    def colour(self, tile: int) -> NDArray[np.uint8]:
        """Return a tile as it is stored, RGB, shape ``(112, 112, 3)``."""
        with self._archive.open(self.names[tile]) as file:
            return np.asarray(Image.open(file).convert("RGB"))

    def grey(self, tile: int, side: int) -> NDArray[np.uint8]:
        """Return a tile made grey, resized and then rank-equalised, three equal channels, shape ``(side, side, 3)``.

        It is resized first, because resizing an equalised tile would narrow its distribution the more, the finer its
        texture is.
        """
        luma = (self.colour(tile) @ np.array(_LUMA)).astype(np.float32)
        resized = np.asarray(Image.fromarray(luma).resize((side, side), Image.Resampling.LANCZOS))
        return np.repeat(equalise(resized, seed=tile)[..., None], 3, axis=2)

    @cached_property
    def _archive(self) -> ZipFile:
        return ZipFile(self.folder / "tiles.zip")


def equalise(grey: NDArray[np.floating], *, seed: int) -> NDArray[np.uint8]:
    """Replace grey levels by their ranks, so that every picture has the same uniform histogram of 256 levels.

    Equal levels are ordered at random, because the order of the rows would paint a ramp over an empty background.

    Args:
        grey: The picture, shape ``(h, w)``.
        seed: Determines the order of equal levels.
    """
    tie_break = np.random.default_rng(seed).random(grey.size)
    ranks = np.empty(grey.size, np.int64)
    ranks[np.lexsort((tie_break, grey.ravel()))] = np.arange(grey.size)
    return (ranks * 256 // grey.size).astype(np.uint8).reshape(grey.shape)
