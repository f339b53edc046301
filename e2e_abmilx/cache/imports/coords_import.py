"""``import_coords``: slides and the patch coordinates of TRIDENT or CLAM → patch stores."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from e2e_abmilx.cache.build import Layout, write_layout
from e2e_abmilx.cache.caching import make_stores
from e2e_abmilx.cache.crosscheck import CHECK_PATCHES, Check, check_count, compare_readers
from e2e_abmilx.cache.imports.coords_files import Tiles, read_tiles
from e2e_abmilx.cache.jobs import StoreJob, fingerprint
from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.cache.tiling import parse_scales
from e2e_abmilx.errors import SourceError
from e2e_abmilx.slides import SNAP, ReadPlan, Slide
from e2e_abmilx.slides.grid import coarse_grid
from e2e_abmilx.slides.listing import plain_name
from e2e_abmilx.slides.slide_files import find_slides
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import as_writable

logger = logging.getLogger(__name__)


def import_coords(
    coords: Path,
    slides: Path,
    out: str | Path,
    *,
    mpp: tuple[float | str, ...] | None = None,
    assume_mpp: float | None = None,
    check_patches: int = CHECK_PATCHES,
    workers: int = 2,
) -> list[CachedSlide]:
    """Cut slides into patches at coordinates that TRIDENT or CLAM found, without looking for tissue again.

    A patch has as many pixels as the coordinates file says. If the finest scale is within 2 % of the file's, a patch
    covers the same square as there; otherwise it has the same centre. Coarser scales get a lattice of patches, each
    around the centre of at least one fine patch. A patch that overhangs its slide is moved inwards.

    Args:
        coords: Folder of ``.h5`` files: TRIDENT's ``…/patches`` with ``<slide>_patches.h5``, or CLAM's ``patches``
            with ``<slide>.h5``.
        slides: A folder, or a CSV with a column ``slide`` (or ``wsi``) of paths and, where the slide's own µm/px
            is wrong or missing, ``mpp``.
        out: Folder of the stores, created if it does not exist; or their URL in a bucket, such as ``s3://bucket/cohort``.
        mpp: Each scale as µm per pixel, as a magnification such as ``20x``, or as a pyramid level such as
            ``level1``. By default the scale of the coordinates files; within 2 % of 0.25, 0.5, 1 … it counts as that.
        assume_mpp: Level-0 µm per pixel of slides that state neither µm/px nor an objective power.
        check_patches: Patches per scale that a second reader of the slide decodes again, as when caching.
        workers: Number of slides cut at the same time, each by its own process.

    Returns:
        One row per coordinates file, as in the manifest.

    Raises:
        SourceError: There are no coordinates, or two files of the same slide.
        SlideError: There is no slide, or two have the same name.
        TilingError: A scale is neither µm/px nor a magnification nor a level that a slide has, or two are the same.
        CheckError: check_patches is negative.
        CacheError: A slide was imported into this folder from another source or with other settings.
    """
    place = as_writable(out)
    check_count(check_patches)
    files = find_slides(slides)
    scales, by_name = parse_scales(mpp or (), files, assume_mpp), {file.name: file for file in files}
    jobs: dict[str, _CoordsJob] = {}
    failed = []
    for path in sorted(Path(coords).glob("*.h5")):
        stem = plain_name(path)
        name = stem if stem in by_name else stem.removesuffix("_patches")
        if name in jobs:
            raise SourceError(f"{jobs[name].coords} and {path} both belong to {name!r}; remove one of them")
        if name in by_name:
            jobs[name] = _CoordsJob(by_name[name], Path(place), path, scales, assume_mpp, check_patches)
        else:
            reason = f"{path} has no slide: none in {slides} is named {name!r}"
            failed.append(CachedSlide(name, "failed", reason))
    if not jobs and not failed:
        raise SourceError(f"{coords} holds no .h5 file; give the folder `patches` that TRIDENT or CLAM wrote")
    if left := len(by_name) - len(jobs):
        logger.warning("%d slides in %s have no coordinates in %s", left, slides, coords)
    return make_stores(list(jobs.values()), place, workers, failed=failed)


@dataclass(frozen=True)
class _CoordsJob(StoreJob):
    """One slide to cut at the coordinates of a file."""

    coords: Path
    mpp: tuple[float, ...]
    assume_mpp: float | None
    check_patches: int

    def check(self, store: PatchStore) -> Check:
        return compare_readers(store, self.slide.path, self.check_patches)

    def origin(self) -> dict[str, object]:
        prints = [fingerprint(self.coords), fingerprint(self.slide.path)]
        settings = {"assume_mpp": self.assume_mpp, "override_mpp": self.slide.mpp}
        source = {"coords": self.coords.name, "fingerprints": prints}
        return {"imported": {**source, "mpp": list(self.mpp), **settings}}

    def write(self) -> None:
        with Slide(self.slide.path) as slide:
            tiles = read_tiles(self.coords, slide)
            resolution = slide.resolution(self.assume_mpp, override_mpp=self.slide.mpp)
            own = tiles.footprint * resolution.mpp / tiles.patch_size
            scales = self.mpp or (_conventional(own),)
            # A finest scale within 2 % of the file's means the file's: its patches keep their exact squares.
            sampled = (own if abs(own / scales[0] - 1) <= SNAP else scales[0], *scales[1:])
            plans = [slide.plan(scale, tiles.patch_size, resolution.mpp) for scale in sampled]
            grids = _lay_out(tiles, slide, plans)
            layout = Layout(resolution, plans, slide.thumbnail(1024), None, grids)
            write_layout(self, slide, layout, scales, tiles.patch_size)


def _conventional(mpp: float) -> float:
    """Return the nearest of … 0.25, 0.5, 1 … if it is within 2 %, so that slides of one cohort have one scale."""
    nearest = 2.0 ** round(math.log2(mpp))
    return nearest if abs(mpp / nearest - 1) <= SNAP else mpp


def _lay_out(tiles: Tiles, slide: Slide, plans: Sequence[ReadPlan]) -> list[np.ndarray]:
    """Return the corners of the patches per scale: the finest have the tiles' centres, the others surround them."""
    finest = plans[0].footprint
    room = np.array(slide.size) - math.ceil(finest)
    fine = np.clip(tiles.coords + round((tiles.footprint - finest) / 2), 0, np.maximum(room, 0))
    anywhere = np.ones((1, 1), bool)  # the other tool has chosen the tissue already
    grids = [fine] + [
        coarse_grid(anywhere, slide.size, fine, fine_footprint=finest, footprint=plan.footprint, min_tissue=0.0)
        for plan in plans[1:]
    ]
    if (room < 0).any() or not all(map(len, grids)):
        raise SourceError(
            f"{slide.path} is {slide.size[0]} × {slide.size[1]} pixels, and patches of {tiles.patch_size} px at"
            f" {plans[-1].mpp:.3g} µm/px do not fit into it; ask for finer scales"
        )
    return grids
