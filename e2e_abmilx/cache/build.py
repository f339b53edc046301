"""The job of one slide: its resolution, tissue and grids, then its patches and its overview."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from e2e_abmilx.cache.crosscheck import CHECK_PATCHES, Check, compare_readers
from e2e_abmilx.cache.jobs import StoreJob, fingerprint
from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.cache.overview import draw_overview
from e2e_abmilx.cache.patches import cut_patches
from e2e_abmilx.cache.thumbnails import HASH
from e2e_abmilx.cache.tiling import Tiling
from e2e_abmilx.errors import InputError
from e2e_abmilx.slides import ReadPlan, Resolution, Slide, SlideError
from e2e_abmilx.slides.bounds import read_bounds
from e2e_abmilx.slides.duplicates import thumbnail_hash
from e2e_abmilx.slides.grid import coarse_grid, patch_grid
from e2e_abmilx.slides.tissue import tissue_mask
from e2e_abmilx.store import PatchStore, StoreWriter
from e2e_abmilx.store.codec import JPEG_QUALITY, encode_patch

_SAMPLE = 32  # patches per scale that are cut and encoded to estimate bytes and time


@dataclass(frozen=True)
class SlideJob(StoreJob):
    """One slide to cut into patches wherever there is tissue.

    Attributes:
        tiling: How to cut it.
        threads: Threads that encode its patches.
        check_patches: Patches per scale that a second reader decodes again.
    """

    tiling: Tiling
    threads: int
    check_patches: int = CHECK_PATCHES

    def origin(self) -> dict[str, object]:
        """Return the settings and the slide's fingerprint; no fingerprint if the slide has been moved away."""
        known = {"fingerprint": fingerprint(self.slide.path)} if self.slide.path.exists() else {}
        return {"tiling": self.tiling.as_json(), "override_mpp": self.slide.mpp, **known}

    def check(self, store: PatchStore) -> Check:
        """Compare some patches with a second reader."""
        return compare_readers(store, self.slide.path, self.check_patches, quality=self.tiling.quality)

    def write(self) -> None:
        """Cut the slide and draw its overview."""
        tiling = self.tiling
        with Slide(self.slide.path) as slide:
            layout = lay_out(slide, self)
            write_layout(self, slide, layout, tiling.mpp, tiling.patch_size, tiling.quality, self.threads)
        self.picture.parent.mkdir(exist_ok=True)
        overview = draw_overview(PatchStore(self.store))
        overview.save(self.picture, compress_level=1)  # twice the bytes in a fifth of the time


class Layout(NamedTuple):
    """Where a slide's patches lie, before any is cut: per scale a plan and the corners, and what they follow from."""

    resolution: Resolution
    plans: list[ReadPlan]
    thumbnail: np.ndarray
    tissue: np.ndarray | None
    grids: list[np.ndarray]


def lay_out(slide: Slide, job: SlideJob) -> Layout:
    """Find resolution, tissue and grids of a slide, without cutting it.

    Raises:
        SlideError: The slide has no resolution, is coarser than a scale, or has no patch with enough tissue.
    """
    tiling = job.tiling
    resolution = slide.resolution(tiling.assume_mpp, override_mpp=job.slide.mpp)
    plans = [slide.plan(scale, tiling.patch_size, resolution.mpp) for scale in tiling.mpp]
    finest = plans[0].footprint
    # about eight thumbnail pixels per patch side
    thumbnail = slide.thumbnail(min(max(round(8 * max(slide.size) / finest), 512), 2048))
    tissue = tissue_mask(thumbnail, mpp=resolution.mpp * slide.size[0] / thumbnail.shape[1])
    fractions = {"overlap": tiling.overlap, "min_tissue": tiling.min_tissue}
    fine = patch_grid(tissue, slide.size, footprint=finest, **fractions)
    grids = [fine] + [
        coarse_grid(tissue, slide.size, fine, fine_footprint=finest, footprint=plan.footprint, **fractions)
        for plan in plans[1:]
    ]
    for scale, coords in zip(tiling.mpp, grids, strict=True):
        if not len(coords):
            raise SlideError(
                f"{slide.path} has no patch of {tiling.patch_size} px at {scale:g} µm/px with at least"
                f" {tiling.min_tissue:.0%} tissue; if there is tissue, lower min_tissue, mpp or patch_size"
            )
    return Layout(resolution, plans, thumbnail, tissue, grids)


def write_layout(
    job: StoreJob,
    slide: Slide,
    layout: Layout,
    scales: Sequence[float],
    patch_size: int,
    quality: int = JPEG_QUALITY,
    threads: int = 1,
) -> None:
    """Cut a slide as laid out, and write its patches, thumbnail and tissue into the store of the job."""
    attributes = {
        **job.origin(),
        "fingerprint": fingerprint(job.slide.path),
        "slide_file": job.slide.path.name,
        "slide_size": list(slide.size),
        "slide_bounds": read_bounds(slide.properties),
        "slide_mpp": layout.resolution.mpp,
        "slide_mpp_source": layout.resolution.source,
        "patch_mpp": [plan.mpp for plan in layout.plans],
        "footprints": [plan.footprint for plan in layout.plans],
        "grid_patches": [len(coords) for coords in layout.grids],
        HASH: thumbnail_hash(layout.thumbnail),
    }
    with StoreWriter(
        job.store, scales, patch_size=patch_size, attributes=attributes, quality=quality, threads=threads
    ) as writer:
        writer.write_thumbnail(layout.thumbnail)
        if layout.tissue is not None:
            writer.write_tissue(layout.tissue)
        for scale, (plan, coords) in enumerate(zip(layout.plans, layout.grids, strict=True)):
            for patches, kept in cut_patches(slide, plan, coords, patch_size):
                writer.write(patches, kept, scale)


def plan_slide(job: SlideJob) -> CachedSlide:
    """Estimate patches, bytes and seconds of caching a slide, from a sample of its patches."""
    try:
        with Slide(job.slide.path) as slide:
            layout = lay_out(slide, job)
            reader, seconds, size = slide.reader, 0.0, 0.0
            for plan, coords in zip(layout.plans, layout.grids, strict=True):
                sample = coords[:: max(1, len(coords) // _SAMPLE)][:_SAMPLE]
                seconds_each, bytes_each = _time_sample(slide, plan, sample, job.tiling)
                seconds += seconds_each * len(coords)
                size += bytes_each * len(coords)
    except InputError as error:
        return CachedSlide(job.slide.name, "failed", str(error))
    return CachedSlide(
        job.slide.name,
        "planned",
        read_by=reader,
        mpp=layout.resolution.mpp,
        mpp_source=layout.resolution.source,
        patches=";".join(str(len(coords)) for coords in layout.grids),
        bytes=round(size),
        seconds=seconds,
    )


def _time_sample(slide: Slide, plan: ReadPlan, coords: np.ndarray, tiling: Tiling) -> tuple[float, float]:
    """Return seconds and bytes per patch, measured by cutting and encoding some in memory."""
    started, size, count = time.perf_counter(), 0, 0
    for patches, _ in cut_patches(slide, plan, coords, tiling.patch_size):
        size += sum(len(encode_patch(patch, tiling.quality, "444")) for patch in patches)
        count += len(patches)
    return (time.perf_counter() - started) / max(count, 1), size / max(count, 1)
