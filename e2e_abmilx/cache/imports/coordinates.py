"""Where TRIDENT and CLAM found patches: their coordinate files."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from e2e_abmilx.errors import SourceError
from e2e_abmilx.slides import SNAP, Slide

#: Pixels along a patch, at least and at most.
SIDES = (8, 4096)

_MAX_TILES = 10**7  # of a slide: more than it has at its finest


class Tiles(NamedTuple):
    """What a coordinates file says: level-0 ``(x, y)``, pixels of a patch, level-0 pixels that it covers."""

    coords: np.ndarray
    patch_size: int
    footprint: float


def read_tiles(path: Path, slide: Slide) -> Tiles:
    """The patches that TRIDENT or CLAM found in this slide."""
    coords, stated = _read_coords(path)
    patch_size = _whole(stated, "patch_size", path)
    if "patch_size_level0" in stated:  # TRIDENT
        footprint: float = _whole(stated, "patch_size_level0", path)
        size = (stated.get("level0_width", slide.size[0]), stated.get("level0_height", slide.size[1]))
        fits = size == slide.size
    elif "patch_level" in stated:  # CLAM; its `downsample` is that of the level, in x and in y
        level = _whole(stated, "patch_level", path, least=0)
        own = slide.level_downsamples[level] if level < len(slide.level_downsamples) else math.nan
        footprint = patch_size * own * _whole({"custom_downsample": 1} | stated, "custom_downsample", path)
        fits = bool(np.any(np.abs(np.ravel(stated.get("downsample", own)) / own - 1) <= SNAP))
    else:
        raise SourceError(
            f"{path} states neither patch_size_level0, as TRIDENT does, nor patch_level, as CLAM does, so that the"
            " size of a patch is unknown; give the folder `patches`, not that of the features"
        )
    if not fits or (coords < 0).any() or (coords >= slide.size).any():
        raise SourceError(
            f"{path} was not made from {slide.path}: its size, level or coordinates lie outside; pair it with its own slide"
        )
    if not SIDES[0] <= patch_size <= SIDES[1]:
        raise SourceError(f"{path} has patches of {patch_size} px; they must have {SIDES[0]} to {SIDES[1]}")
    return Tiles(coords, patch_size, footprint)


def _read_coords(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Level-0 ``(x, y)``, shape ``(N, 2)``, and the attributes beside them."""
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
        raise SourceError(f"{path} cannot be read ({error}); let TRIDENT or CLAM write it again") from error
    raise SourceError(
        f"{path} has coords {what}, not 1 to {_MAX_TILES} whole level-0 (x, y); is there tissue?"
    )


def _whole(stated: dict[str, Any], name: str, path: Path, *, least: int = 1) -> int:
    try:
        number = int(stated[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        number = -1
    if number < least:
        raise SourceError(
            f"{path} states {name} {stated.get(name)!r}, not a whole number; let it be written again"
        )
    return number
