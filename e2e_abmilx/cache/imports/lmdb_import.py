"""``import_lmdb``: the LMDB databases of the authors of ABMILX → patch stores."""

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from e2e_abmilx.cache.caching import make_stores
from e2e_abmilx.cache.imports.attributes import import_attributes, nan_to_none
from e2e_abmilx.cache.imports.lmdb_files import open_database
from e2e_abmilx.cache.jobs import StoreJob, fingerprint
from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.cache.tiling import parse_scales
from e2e_abmilx.errors import SourceError
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store import StoreWriter
from e2e_abmilx.store.locations import as_writable

_FILE_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\ud800-\udfff]{1,200}")


def import_lmdb(
    fine: Path,
    out: str | Path,
    *,
    coarse: Path | None = None,
    mpp: tuple[float | str, ...] | None = None,
    workers: int = 2,
) -> list[CachedSlide]:
    """Make patch stores of the LMDB databases of the authors of ABMILX, without decoding their JPEG streams.

    The two scales are matched by slide name. These databases do not say where in its slide a patch lay. They hold
    pickles, of which only bytes, str, int, list and dict are accepted; nothing in them is run.

    Args:
        fine: The database of the finest scale, such as ``256_80_level1.lmdb``.
        out: Folder of the stores, created if it does not exist; or their URL in a bucket, such as ``s3://bucket/cohort``.
        coarse: The database of the coarser scale, such as ``256_80_level1_512.lmdb``.
        mpp: µm per pixel of each database, or magnifications such as ``20x``; unknown by default.
        workers: Number of slides imported at the same time, each by its own process.

    Returns:
        One row per slide, as in the manifest.

    Raises:
        SourceError: A database cannot be used.
        TilingError: A scale is neither µm/px nor a magnification, or two are the same.
        CacheError: A slide was imported into this folder from another source or with other settings.
    """
    place = as_writable(out)
    databases = (Path(fine),) if coarse is None else (Path(fine), Path(coarse))
    if len({path.resolve() for path in databases}) < len(databases):
        raise SourceError(f"fine and coarse are both {fine}; give two databases, or leave coarse out")
    scales = parse_scales(mpp or ()) or (math.nan,) * len(databases)
    if len(scales) != len(databases):
        raise SourceError(f"mpp is {list(scales)}; it must have one number per database, here {len(databases)}")
    counts = []
    for path in databases:
        with open_database(path) as database:
            counts.append(database.counts())
    jobs, failed = [], []
    for name in sorted(set().union(*counts)):
        without = [str(path) for path, count in zip(databases, counts, strict=True) if not count.get(name)]
        if not _FILE_NAME.fullmatch(name):
            failed.append(CachedSlide(ascii(name), "failed", f"{name!a} in {fine} cannot name a file"))
        elif without:
            reason = f"{' and '.join(without)} has no patch of slide {name!r}"
            failed.append(CachedSlide(name, "failed", reason))
        else:
            slide = SlideFile(databases[0], title=name)
            jobs.append(_LmdbJob(slide, Path(place), databases, tuple(count[name] for count in counts), scales))
    return make_stores(jobs, place, workers, failed=failed)


@dataclass(frozen=True)
class _LmdbJob(StoreJob):
    """One slide of one or two databases, with its number of patches in each."""

    databases: tuple[Path, ...]
    counts: tuple[int, ...]
    mpp: tuple[float, ...]

    def origin(self) -> dict[str, object]:
        prints = [fingerprint(path) for path in self.databases]
        names = [path.name for path in self.databases]
        return {"imported": {"lmdb": names, "fingerprints": prints, "mpp": nan_to_none(self.mpp)}}

    def write(self) -> None:
        name = self.slide.name
        with contextlib.ExitStack() as stack:
            databases = [stack.enter_context(open_database(path)) for path in self.databases]
            writer = StoreWriter(
                self.store,
                self.mpp,
                patch_size=databases[0].patch_size(name),
                attributes=import_attributes(self, self.counts, self.mpp),
                quality=80,  # the defaults of the authors' program that writes these databases
                subsampling="420",
            )
            with writer:
                for scale, (database, count) in enumerate(zip(databases, self.counts, strict=True)):
                    writer.write_encoded(database.jpegs(name, count), np.full((count, 2), -1), scale)
