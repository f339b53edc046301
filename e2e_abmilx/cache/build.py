"""One slide → its patch store: resolution, tissue, grids, patches, picture."""

import hashlib
import os
import shutil
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from e2e_abmilx.cache.crosscheck import CHECK_PATCHES, Check, compare_readers
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest, update_manifest
from e2e_abmilx.cache.overview import draw_overview
from e2e_abmilx.cache.patches import cut_patches
from e2e_abmilx.cache.tiling import Tiling
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold
from e2e_abmilx.slides import ReadPlan, Slide, SlideError
from e2e_abmilx.slides.bounds import read_bounds
from e2e_abmilx.slides.grid import coarse_grid, patch_grid
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.slides.tissue import tissue_mask
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.codec import encode_patch
from e2e_abmilx.store.writer import StoreWriter, leftovers

CLAIMS = ".claims"
OVERVIEWS = "overviews"

_SAMPLE = 32  # patches a scale that are cut and encoded to estimate bytes and time


class Named(Protocol):
    """A slide, or what stands for one: a name, and the file or folder that its patches come from."""

    @property
    def name(self) -> str:
        """The slide's name."""

    @property
    def path(self) -> Path:
        """Where its patches come from."""


@dataclass(frozen=True)
class StoreJob(ABC):
    """One store to make; travels to worker processes.

    Attributes:
        slide: The slide.
        out: Folder of the cache.
    """

    slide: Named
    out: Path

    @property
    def store(self) -> Path:
        """Where its store will be."""
        return self.out / f"{self.slide.name}.zarr"

    @property
    def claim(self) -> Path:
        """The lock file of whoever is making it."""
        return self.out / CLAIMS / f"{self.slide.name}.lock"

    @abstractmethod
    def origin(self) -> dict[str, object]:
        """What the store is made from, and how: attributes that a store which is there already must have."""

    def check(self, store: PatchStore) -> Check:
        """Have some patches of the finished store decoded again by another reader; there is none but of slides."""
        return Check()

    @abstractmethod
    def write(self) -> None:
        """Write the store.

        Raises:
            InputError: The slide cannot be used.
        """


def try_store(job: StoreJob) -> CachedSlide:
    """As :func:`make_store`, but a slide that another process is at is left to it: its row is ``"claimed"``."""
    return make_store(job, wait=False)


def make_store(job: StoreJob, *, wait: bool = True) -> CachedSlide:
    """Make one store, or say why not; runs in a worker process.

    Args:
        job: The store.
        wait: Wait for another process that is at it, whose store is there afterwards.
    """
    with hold(job.claim, wait=wait) as ours:
        if not ours:
            return CachedSlide(job.slide.name, "claimed")
        started = time.perf_counter()
        if job.store.exists():
            return describe(job, read_manifest(job.out))
        for partial in leftovers(job.store):
            shutil.rmtree(partial)
        try:
            job.write()
            row = describe(job, {})._replace(seconds=round(time.perf_counter() - started, 2))
        except InputError as error:
            row = CachedSlide(job.slide.name, "failed", str(error))
        except Exception as error:  # noqa: BLE001 - whatever a reader raises on this slide, the others go on
            row = CachedSlide(job.slide.name, "failed", f"{job.slide.path}: {type(error).__name__}: {error}")
        update_manifest(job.out, [row])
        return row


@dataclass(frozen=True)
class Job(StoreJob):
    """One slide to find the tissue of and to cut.

    Attributes:
        slide: The slide.
        out: Folder of the cache.
        tiling: How to cut it.
        threads: Threads inside the slide.
        check_patches: Patches a scale that the other reader decodes again.
    """

    slide: SlideFile
    tiling: Tiling
    threads: int
    check_patches: int = CHECK_PATCHES

    def origin(self) -> dict[str, object]:
        """The settings, and the slide's fingerprint; without that, where the slide has gone since."""
        print_ = {"fingerprint": fingerprint(self.slide.path)} if self.slide.path.exists() else {}
        return {"tiling": self.tiling.as_json(), "override_mpp": self.slide.mpp, **print_}

    def check(self, store: PatchStore) -> Check:
        """Decode some patches again, by the other reader."""
        return compare_readers(store, self.slide.path, self.check_patches, quality=self.tiling.quality)

    def write(self) -> None:
        """Cut the slide, and draw its overview."""
        tiling = self.tiling
        with Slide(self.slide.path) as slide:
            prepared = _prepare(slide, self)
            facts = {
                **self.origin(),
                "slide_file": self.slide.path.name,
                "slide_size": list(slide.size),
                "slide_bounds": read_bounds(slide.properties),
                "slide_mpp": prepared.mpp,
                "slide_mpp_source": prepared.mpp_source,
                "patch_mpp": [plan.mpp for plan in prepared.plans],
                "footprints": [plan.footprint for plan in prepared.plans],
                "grid_patches": [len(coords) for coords in prepared.grids],
            }
            with StoreWriter(
                self.store,
                tiling.mpp,
                patch_size=tiling.patch_size,
                attributes=facts,
                quality=tiling.quality,
                threads=self.threads,
            ) as writer:
                writer.write_thumbnail(prepared.thumbnail)
                writer.write_tissue(prepared.tissue)
                for scale, (plan, coords) in enumerate(zip(prepared.plans, prepared.grids, strict=True)):
                    for patches, kept in cut_patches(slide, plan, coords, tiling.patch_size):
                        writer.write(patches, kept, scale)
        picture = self.out / OVERVIEWS / f"{self.slide.name}.png"
        picture.parent.mkdir(exist_ok=True)
        overview = draw_overview(PatchStore(self.store))
        overview.save(picture, compress_level=1)  # twice the bytes, a fifth of the time


class _Prepared(NamedTuple):
    """What a slide's patches will be, before any is cut."""

    mpp: float
    mpp_source: str
    plans: list[ReadPlan]
    thumbnail: np.ndarray
    tissue: np.ndarray
    grids: list[np.ndarray]


def plan_slide(job: Job) -> CachedSlide:
    """Say what caching a slide would come to, from a sample of its patches."""
    try:
        with Slide(job.slide.path) as slide:
            prepared = _prepare(slide, job)
            reader, seconds, size = slide.reader, 0.0, 0.0
            for plan, coords in zip(prepared.plans, prepared.grids, strict=True):
                sample = coords[:: max(1, len(coords) // _SAMPLE)][:_SAMPLE]
                used, bytes_ = _time_sample(slide, plan, sample, job.tiling)
                seconds += used * len(coords)
                size += bytes_ * len(coords)
    except InputError as error:
        return CachedSlide(job.slide.name, "failed", str(error))
    patches = ";".join(str(len(coords)) for coords in prepared.grids)
    return CachedSlide(
        job.slide.name,
        "planned",
        read_by=reader,
        mpp=prepared.mpp,
        mpp_source=prepared.mpp_source,
        patches=patches,
        bytes=round(size),
        seconds=round(seconds, 2),
    )


def _time_sample(slide: Slide, plan: ReadPlan, coords: np.ndarray, tiling: Tiling) -> tuple[float, float]:
    """Seconds and bytes a patch, from some that are cut and encoded in memory."""
    started, size, count = time.perf_counter(), 0, 0
    for patches, _ in cut_patches(slide, plan, coords, tiling.patch_size):
        size += sum(len(encode_patch(patch, tiling.quality, "444")) for patch in patches)
        count += len(patches)
    return (time.perf_counter() - started) / max(count, 1), size / max(count, 1)


def _prepare(slide: Slide, job: Job) -> _Prepared:
    """Resolution, tissue and grids of a slide."""
    tiling = job.tiling
    resolution = slide.resolution(tiling.assume_mpp, override_mpp=job.slide.mpp)
    plans = [slide.plan(scale, tiling.patch_size, resolution.mpp) for scale in tiling.mpp]
    thumbnail = slide.thumbnail(_thumbnail_side(slide.size, plans[0].footprint))
    tissue = tissue_mask(thumbnail, mpp=resolution.mpp * slide.size[0] / thumbnail.shape[1])
    fine_footprint = plans[0].footprint
    shares = {"overlap": tiling.overlap, "min_tissue": tiling.min_tissue}
    fine = patch_grid(tissue, slide.size, footprint=fine_footprint, **shares)
    grids = [fine] + [
        coarse_grid(
            tissue, slide.size, fine, fine_footprint=fine_footprint, footprint=plan.footprint, **shares
        )
        for plan in plans[1:]
    ]
    for scale, coords in zip(tiling.mpp, grids, strict=True):
        if not len(coords):
            raise SlideError(
                f"{slide.path} has no patch of {tiling.patch_size} px at {scale:g} µm/px with at least"
                f" {tiling.min_tissue:.0%} tissue; if there is tissue, lower min_tissue, mpp or patch_size"
            )
    return _Prepared(resolution.mpp, resolution.source, plans, thumbnail, tissue, grids)


def _thumbnail_side(size: tuple[int, int], footprint: float) -> int:
    """Pixels along the longer side, so that about eight lie along a patch; at least 512, at most 2048."""
    return min(max(round(8 * max(size) / footprint), 512), 2048)


def describe(job: StoreJob, earlier: dict[str, CachedSlide]) -> CachedSlide:
    """The row of a finished store; the earlier one, which knows how long it took, where there is one.

    A store without a row has not been checked yet. Where the readers disagree, it is removed.
    """
    row = earlier.get(job.slide.name)
    if row is not None and row.status == "done":
        return row
    store = PatchStore(job.store)
    facts = store.attributes
    check = job.check(store)
    if check.problem:
        _remove(job)
        return CachedSlide(job.slide.name, "failed", check.problem, *check[:-1])
    counts = [store.num_patches(scale) for scale in range(len(store.scales))]
    return CachedSlide(
        job.slide.name,
        "done",
        "",
        *check[:-1],
        mpp=facts["slide_mpp"],
        mpp_source=facts["slide_mpp_source"],
        patches=";".join(map(str, counts)),
        unreadable=sum(facts["grid_patches"]) - sum(counts),
        bytes=sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()),
    )


def _remove(job: StoreJob) -> None:
    """Remove a store and its picture, so that nobody takes half of it for the whole."""
    refused = job.store.with_name(f".{job.store.name}.refused")
    shutil.rmtree(refused, ignore_errors=True)
    job.store.rename(refused)
    shutil.rmtree(refused)
    (job.out / OVERVIEWS / f"{job.slide.name}.png").unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """A digest of a slide's size and of the first and last 64 KiB of its file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        digest.update(file.read(65536))
        file.seek(max(0, size - 65536))
        digest.update(file.read(65536))
    return digest.hexdigest()[:32]
