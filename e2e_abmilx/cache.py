"""Many slides → one patch store each: parallel, resumable, bad slides set aside and named."""

import csv
import hashlib
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from e2e_abmilx.errors import InputError
from e2e_abmilx.patches import cut_patches
from e2e_abmilx.slides import ReadPlan, Slide, SlideError, find_slides
from e2e_abmilx.store import PatchStore, StoreError, StoreWriter
from e2e_abmilx.tissue import coarse_grid, patch_grid, tissue_mask

logger = logging.getLogger(__name__)

MANIFEST = "manifest.csv"


class CacheError(InputError):
    """A cache that cannot be built or used."""


class Tiling(NamedTuple):
    """What decides the patches of a store, apart from the slide.

    Attributes:
        mpp: µm/px of each scale, finest first.
        patch_size: Side of a patch, pixels.
        overlap: Share of a patch that neighbours have in common, in [0, 1).
        min_tissue: Smallest share of tissue in a patch, in [0, 1].
        assume_mpp: Level-0 µm/px of a slide that states none.
    """

    mpp: tuple[float, ...]
    patch_size: int
    overlap: float
    min_tissue: float
    assume_mpp: float | None


class CachedSlide(NamedTuple):
    """One row of the manifest.

    Attributes:
        slide: Name of the slide.
        status: ``"done"``, or ``"failed"`` for a slide that was set aside.
        reason: Why it failed.
        mpp: Level-0 µm/px.
        mpp_source: Where that number came from.
        patches: Patches of each scale, separated by semicolons.
        unreadable: Patches left out because their pixels could not be decoded.
        bytes: Size of the store.
        seconds: Time it took.
    """

    slide: str
    status: str
    reason: str = ""
    mpp: float | None = None
    mpp_source: str = ""
    patches: str = ""
    unreadable: int = 0
    bytes: int = 0
    seconds: float = 0.0


def cache_slides(
    slides: Path | list[Path],
    out: Path,
    *,
    mpp: tuple[float, ...] = (0.5, 1.0),
    patch_size: int = 256,
    overlap: float = 0.0,
    min_tissue: float = 0.5,
    assume_mpp: float | None = None,
    workers: int = 2,
) -> list[CachedSlide]:
    """Cut slides into patches and keep them as one ``<slide>.zarr`` each.

    A slide that is already there is not done again. One that cannot be read is set aside: the others go on,
    and ``manifest.csv`` says why.

    Args:
        slides: A folder, a list of files, or a CSV with a column ``slide`` of paths.
        out: Folder of the stores; made where it does not exist.
        mpp: µm per pixel of each scale.
        patch_size: Side of a patch, pixels.
        overlap: Share of a patch that neighbours have in common, in [0, 1).
        min_tissue: Smallest share of tissue in a patch, in [0, 1].
        assume_mpp: Level-0 µm per pixel of slides that state none.
        workers: Slides cut at the same time, each by a process of its own.

    Returns:
        A row for each slide, as in the manifest.

    Raises:
        SlideError: There is no slide, or two of one name.
        CacheError: The folder holds stores made with other settings, or cannot be written.
    """
    tiling = Tiling(tuple(sorted(map(float, mpp))), patch_size, overlap, min_tissue, assume_mpp)
    _check(tiling)
    paths = find_slides(slides)
    out = Path(out)
    _make_folder(out)
    refuse_other_settings(out, tiling)
    earlier = _read_manifest(out / MANIFEST)
    ready = [path for path in paths if is_cached(path, out)]
    rows = [earlier.get(path.stem) or _describe(path.stem, out, seconds=0.0) for path in ready]
    todo = [path for path in paths if path not in set(ready)]
    with tqdm(total=len(paths), initial=len(ready), desc="caching", unit="slide", disable=not todo) as bar:
        for row in _cache_all(todo, out, tiling, workers):
            rows.append(row)
            bar.update()
            bar.set_postfix(failed=sum(row.status == "failed" for row in rows))
    rows.sort(key=lambda row: row.slide)
    _write_manifest(out / MANIFEST, rows)
    for row in rows:
        if row.status == "failed":
            logger.warning("set aside %s: %s", row.slide, row.reason)
    return rows


def is_cached(slide: Path, out: Path) -> bool:
    """Whether a slide's store is there and was made from this very file.

    Raises:
        CacheError: The store was made from another file of the same name.
    """
    target = out / f"{slide.stem}.zarr"
    if not target.exists():
        return False
    if slide.exists() and PatchStore(target).attributes.get("fingerprint") != fingerprint(slide):
        raise CacheError(
            f"{target} was made from another {slide.name} than {slide}; remove it to cache this one"
        )
    return True


def refuse_other_settings(out: Path, tiling: Tiling) -> None:
    """Refuse a folder whose stores were cut in another way: bags must not mix them.

    Raises:
        CacheError: A store was made with other settings; the message shows the difference.
    """
    for path in sorted(out.glob("*.zarr")):
        made = PatchStore(path).attributes.get("tiling")
        wanted = _as_json(tiling)
        if made is None or made == wanted:
            continue
        changed = [
            f"{key} {made.get(key)} there, {value} now"
            for key, value in wanted.items()
            if made.get(key) != value
        ]
        raise CacheError(
            f"{out} holds {path.name}, made with other settings: {'; '.join(changed)}."
            " Give another folder, the old settings, or remove this one"
        )


def _cache_all(paths: Sequence[Path], out: Path, tiling: Tiling, workers: int) -> Iterator[CachedSlide]:
    if workers <= 1 or len(paths) <= 1:
        for path in paths:
            yield _cache_one(path, out, tiling)
        return
    # spawn: a forked copy of a process whose threads hold locks may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(paths)), mp_context=context) as pool:
        futures = [pool.submit(_cache_one, path, out, tiling) for path in paths]
        for future in as_completed(futures):
            yield future.result()


def _cache_one(path: Path, out: Path, tiling: Tiling) -> CachedSlide:
    """Build the store of one slide, or say why not."""
    started = time.perf_counter()
    try:
        _build(path, out / f"{path.stem}.zarr", tiling)
    except (SlideError, StoreError) as error:
        return CachedSlide(path.stem, "failed", str(error), seconds=round(time.perf_counter() - started, 2))
    return _describe(path.stem, out, seconds=round(time.perf_counter() - started, 2))


def _describe(slide: str, out: Path, *, seconds: float) -> CachedSlide:
    store = PatchStore(out / f"{slide}.zarr")
    facts = store.attributes
    counts = [store.num_patches(scale) for scale in range(len(store.scales))]
    return CachedSlide(
        slide,
        "done",
        mpp=facts["slide_mpp"],
        mpp_source=facts["slide_mpp_source"],
        patches=";".join(map(str, counts)),
        unreadable=sum(facts["grid_patches"]) - sum(counts),
        bytes=sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()),
        seconds=seconds,
    )


def _build(path: Path, target: Path, tiling: Tiling) -> None:
    with Slide(path) as slide:
        resolution = slide.resolution(tiling.assume_mpp)
        plans = [slide.plan(scale, tiling.patch_size, resolution.mpp) for scale in tiling.mpp]
        thumbnail = slide.thumbnail(_thumbnail_side(slide.size, plans[0].footprint))
        mask = tissue_mask(thumbnail, mpp=resolution.mpp * slide.size[0] / thumbnail.shape[1])
        grids = _grids(mask, slide.size, plans, tiling)
        for scale, coords in zip(tiling.mpp, grids, strict=True):
            if not len(coords):
                raise SlideError(
                    f"{path} has no patch of {tiling.patch_size} px at {scale:g} µm/px with at least"
                    f" {tiling.min_tissue:.0%} tissue; if there is tissue, lower min_tissue, mpp or patch_size"
                )
        facts = {
            "tiling": _as_json(tiling),
            "fingerprint": fingerprint(path),
            "slide_file": path.name,
            "slide_size": list(slide.size),
            "slide_mpp": resolution.mpp,
            "slide_mpp_source": resolution.source,
            "patch_mpp": [plan.mpp for plan in plans],
            "footprints": [plan.footprint for plan in plans],
            "grid_patches": [len(coords) for coords in grids],
        }
        with StoreWriter(target, tiling.mpp, patch_size=tiling.patch_size, attributes=facts) as writer:
            writer.write_thumbnail(thumbnail)
            writer.write_tissue(mask)
            for scale, (plan, coords) in enumerate(zip(plans, grids, strict=True)):
                for patches, kept in cut_patches(slide, plan, coords, tiling.patch_size):
                    writer.write(patches, kept, scale)


def _thumbnail_side(size: tuple[int, int], footprint: float) -> int:
    """Pixels along the longer side, so that about eight lie along a patch; at least 512, at most 2048."""
    return min(max(round(8 * max(size) / footprint), 512), 2048)


def _grids(
    mask: np.ndarray, size: tuple[int, int], plans: Sequence[ReadPlan], tiling: Tiling
) -> list[np.ndarray]:
    fine_footprint = plans[0].footprint
    shares = {"overlap": tiling.overlap, "min_tissue": tiling.min_tissue}
    fine = patch_grid(mask, size, footprint=fine_footprint, **shares)
    return [fine] + [
        coarse_grid(mask, size, fine, fine_footprint=fine_footprint, footprint=plan.footprint, **shares)
        for plan in plans[1:]
    ]


def fingerprint(path: Path) -> str:
    """A digest of a slide's size and of the first and last 64 KiB of its file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        digest.update(file.read(65536))
        file.seek(max(0, size - 65536))
        digest.update(file.read(65536))
    return digest.hexdigest()[:32]


def _as_json(tiling: Tiling) -> dict[str, object]:
    return {**tiling._asdict(), "mpp": list(tiling.mpp)}


def _check(tiling: Tiling) -> None:
    if not tiling.mpp or min(tiling.mpp) <= 0 or len(set(tiling.mpp)) < len(tiling.mpp):
        raise CacheError(f"mpp {list(tiling.mpp)}: give different positive µm/px, for example [0.5, 1.0]")
    if tiling.patch_size < 8:
        raise CacheError(f"patch_size is {tiling.patch_size}; a patch has at least 8 pixels along its side")
    if not 0 <= tiling.overlap < 1:
        raise CacheError(f"overlap is {tiling.overlap}; it is a share of the patch and must lie in [0, 1)")
    if not 0 <= tiling.min_tissue <= 1:
        raise CacheError(
            f"min_tissue is {tiling.min_tissue}; it is a share of the patch and must lie in [0, 1]"
        )
    if tiling.assume_mpp is not None and tiling.assume_mpp <= 0:
        raise CacheError(f"assume_mpp is {tiling.assume_mpp}; µm/px are positive, for example 0.25")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CacheError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to"
        ) from error


def _read_manifest(path: Path) -> dict[str, CachedSlide]:
    """The finished rows of an earlier manifest, by slide."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "done"]
    return {
        row["slide"]: CachedSlide(
            row["slide"],
            "done",
            mpp=float(row["mpp"]),
            mpp_source=row["mpp_source"],
            patches=row["patches"],
            unreadable=int(row["unreadable"]),
            bytes=int(row["bytes"]),
            seconds=float(row["seconds"]),
        )
        for row in rows
    }


def _write_manifest(path: Path, rows: Sequence[CachedSlide]) -> None:
    partial = path.with_suffix(".partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CachedSlide._fields)
        writer.writerows(rows)
    partial.replace(path)
