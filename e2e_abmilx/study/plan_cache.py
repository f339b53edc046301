"""Patches, size and time of the cache: counted in stores that exist, estimated from a sample of the other slides."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from e2e_abmilx.cache.build import SlideJob, plan_slide
from e2e_abmilx.cache.origins import refuse_other_origins
from e2e_abmilx.cache.tiling import Tiling, check, parse_scales
from e2e_abmilx.datamodules import BagDataModule, FeatureDataModule, SlideDataModule
from e2e_abmilx.io.progress import track
from e2e_abmilx.store import CohortIndex
from e2e_abmilx.store.locations import Location, store_path
from e2e_abmilx.study.plan_cohort import PlannedCohort, patches_of_features, slide_files

#: Slides that are looked at where many are not cached yet.
SAMPLE = 8


class CachePlan(NamedTuple):
    """The patches of a cohort.

    Attributes:
        patches: Patches of each slide of the cohort at each scale, finest first; empty if no slide is known.
        side: Side of a patch, pixels; None for features.
        stored: Slides that have a store or features.
        to_cache: Slides that a fit would cache first.
        sampled: Slides of those that were looked at.
        failed: Why sampled slides cannot be cached.
        bytes: Size of what is stored and of what will be.
        new_bytes: Size of what will be stored.
        hours: Of caching, with the workers that a fit would use.
    """

    patches: dict[str, tuple[int, ...]]
    side: int | None
    stored: int = 0
    to_cache: int = 0
    sampled: int = 0
    failed: tuple[str, ...] = ()
    bytes: int = 0
    new_bytes: int = 0
    hours: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to cache."""
        return bool(self.stored) and not self.to_cache


def plan_cache(data: BagDataModule, cohort: PlannedCohort) -> CachePlan:
    """Count and estimate the patches of a cohort; nothing is written.

    Raises:
        InputError: A store, a slide list or a setting of the cache cannot be used, or a store was made with other
            settings.
    """
    if isinstance(data, FeatureDataModule):
        patches = patches_of_features(data, cohort.everyone)
        size = sum(data.folder.files[slide].stat().st_size for slide in patches)
        return CachePlan(patches, None, len(patches), bytes=size)
    if not isinstance(data, SlideDataModule):
        return CachePlan({}, None)
    jobs = _jobs(data)
    index = CohortIndex(data.cache)
    stores = {name: index[name] for name in index.slides()}
    refuse_other_origins(jobs, index)
    todo = [job for job in jobs if job.slide.name not in stores]
    rows = [plan_slide(job) for job in track(_sample(todo), "looking at slides", "slides")] if todo else []
    planned = {row.slide: tuple(map(int, row.patches.split(";"))) for row in rows if row.status == "planned"}
    known = {name: store.counts for name, store in stores.items()} | planned
    typical = tuple(np.mean(list(planned.values()), axis=0).round().astype(int).tolist()) if planned else ()
    patches = {slide: known.get(slide, typical) for case in cohort.everyone for slide in case.slides}
    made = sum(_size(store_path(data.cache, name)) for name in stores)
    share = len(todo) / max(len(planned), 1)
    new = round(share * sum(row.bytes for row in rows))
    workers = min((os.cpu_count() or 1) if data.num_workers is None else max(1, data.num_workers), max(len(todo), 1))
    side = next(iter(stores.values())).patch_size if stores else data.patch_size
    return CachePlan(
        {slide: counts for slide, counts in patches.items() if counts},
        side,
        len(stores),
        len(todo),
        len(rows),
        tuple(f"{row.slide}: {row.reason}" for row in rows if row.status == "failed"),
        made + new,
        new,
        share * sum(row.seconds for row in rows) / workers / 3600,
    )


def _jobs(data: SlideDataModule) -> list[SlideJob]:
    """Return the jobs by which a fit would cache the slides of a data module."""
    files = slide_files(data)
    if not files or not isinstance(data.cache, Path):  # a cache in object storage is never made of slides
        return []
    tiling = Tiling(parse_scales(data.mpp, files, data.assume_mpp), data.patch_size, 0.0, 0.5, 90, data.assume_mpp)
    check(tiling)
    return [SlideJob(file, data.cache, tiling, threads=1) for file in files]


def _sample(jobs: Sequence[SlideJob]) -> list[SlideJob]:
    """Return slides at random, but always the same ones."""
    chosen = np.random.default_rng(0).permutation(len(jobs))[:SAMPLE]
    return [jobs[index] for index in sorted(chosen)]


def _size(path: Location) -> int:
    """Return the bytes of a store on a local disk; 0 of one elsewhere."""
    return 0 if not isinstance(path, Path) else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
