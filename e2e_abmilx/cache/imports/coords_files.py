"""The coordinates files of TRIDENT and CLAM, which say where their patches are."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from e2e_abmilx.errors import SourceError
from e2e_abmilx.slides import SNAP, Slide

_SIDES = (8, 4096)  # smallest and largest side of a patch, pixels
_MAX_TILES = 10**7  # more than any slide has at its finest level


class Tiles(NamedTuple):
    """Level-0 ``(x, y)`` of the corners of patches, ``(N, 2)``, their side in pixels, and their side at level 0."""

    coords: np.ndarray
    patch_size: int
    footprint: float


def read_tiles(path: Path, slide: Slide) -> Tiles:
    """Read the patches that TRIDENT or CLAM found in a slide; refuse a file of another kind or another slide."""
    coords, stated = _read_coords(path)
    patch_size = _integer(stated, "patch_size", path)
    if "patch_size_level0" in stated:  # TRIDENT
        footprint: float = _integer(stated, "patch_size_level0", path)
        size = (stated.get("level0_width", slide.size[0]), stated.get("level0_height", slide.size[1]))
        fits = size == slide.size
    elif "patch_level" in stated:  # CLAM, whose `downsample` is that of the level in x and in y
        level = _integer(stated, "patch_level", path, least=0)
        own = slide.level_downsamples[level] if level < len(slide.level_downsamples) else math.nan
        footprint = patch_size * own * _integer({"custom_downsample": 1} | stated, "custom_downsample", path)
        fits = bool(np.any(np.abs(np.ravel(stated.get("downsample", own)) / own - 1) <= SNAP))
    else:
        raise SourceError(
            f"{path} states neither patch_size_level0, as TRIDENT does, nor patch_level, as CLAM does, so the size of a"
            " patch is unknown; give the folder `patches`, not the folder of features"
        )
    if not fits or (coords < 0).any() or (coords >= slide.size).any():
        raise SourceError(
            f"{path} was not made from {slide.path}: its size, level or coordinates do not fit; pair it with its own slide"
        )
    if not _SIDES[0] <= patch_size <= _SIDES[1]:
        raise SourceError(f"{path} has patches of {patch_size} px; they must have {_SIDES[0]} to {_SIDES[1]}")
    return Tiles(coords, patch_size, footprint)


def _read_coords(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return level-0 ``(x, y)``, shape ``(N, 2)``, and the attributes stored with them."""
    try:
        import h5py
    except ImportError as error:
        raise SourceError("reading coordinates needs h5py; `pip install e2e-abmilx[features]`") from error
    try:
        with h5py.File(path, "r") as file:
            table = file["coords"]
            if table.shape[1:] == (2,) and table.dtype.kind in "iu" and 0 < len(table) <= _MAX_TILES:
                return table[:].astype(np.int64), dict(table.attrs)
            what = f"{table.dtype} of {table.shape}"
    except (OSError, KeyError, AttributeError, RuntimeError) as error:
        raise SourceError(f"{path} cannot be read ({error}); write it again with TRIDENT or CLAM") from error
    raise SourceError(f"{path} has coords {what}, not 1 to {_MAX_TILES} integer level-0 (x, y); is there tissue?")


def _integer(stated: dict[str, Any], name: str, path: Path, *, least: int = 1) -> int:
    try:
        number = int(stated[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        number = -1
    if number < least:
        raise SourceError(
            f"{path} states {name} {stated.get(name)!r}, not an integer of at least {least}; write it again"
        )
    return number
