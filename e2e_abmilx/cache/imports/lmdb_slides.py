"""The authors' LMDB databases → patch stores."""

import contextlib
import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from e2e_abmilx.cache.build import StoreJob, fingerprint
from e2e_abmilx.cache.caching import make_stores
from e2e_abmilx.cache.imports.databases import open_database
from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.errors import SourceError
from e2e_abmilx.store import StoreWriter

logger = logging.getLogger(__name__)

from e2e_abmilx.cache.imports.facts import NamedSource, import_facts, known_scales, parse_mpp

_FILE_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\ud800-\udfff]{1,200}")


def import_lmdb(
    fine: Path,
    out: Path,
    *,
    coarse: Path | None = None,
    mpp: tuple[float | str, ...] | None = None,
    workers: int = 2,
) -> list[CachedSlide]:
    """Make patch stores of the LMDBs of the authors of ABMILX, JPEG streams unchanged.

    The two scales are matched by slide name. Where a patch lay in its slide is not in these databases. Of their
    pickles nothing but bytes, str, int, list and dict is accepted, and nothing is run.

    Args:
        fine: The database of the finest scale, such as ``256_80_level1.lmdb``.
        out: Folder of the stores; made where it does not exist.
        coarse: The database of the coarser scale, such as ``256_80_level1_512.lmdb``.
        mpp: µm per pixel of each database, or magnifications such as ``20x``; unknown by default.
        workers: Slides imported at the same time, each by a process of its own.

    Returns:
        A row for each slide, as in the manifest.

    Raises:
        SourceError: A database cannot be used.
        CacheError: A slide was imported here from something else or in another way.
    """
    databases = (Path(fine),) if coarse is None else (Path(fine), Path(coarse))
    if len({path.resolve() for path in databases}) < len(databases):
        raise SourceError(f"fine and coarse are one database, {fine}; name two, or leave coarse out")
    scales = parse_mpp(mpp) or (math.nan,) * len(databases)
    if len(scales) != len(databases):
        raise SourceError(f"mpp {list(scales)} is not one number for each of {len(databases)} databases")
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
            numbers = tuple(count[name] for count in counts)
            jobs.append(_LmdbSlide(NamedSource(name, databases[0]), Path(out), databases, numbers, scales))
    return make_stores(jobs, Path(out), workers, failed=failed)


@dataclass(frozen=True)
class _LmdbSlide(StoreJob):
    databases: tuple[Path, ...]
    counts: tuple[int, ...]
    mpp: tuple[float, ...]

    def origin(self) -> dict[str, object]:
        prints = [fingerprint(path) for path in self.databases]
        names = [path.name for path in self.databases]
        return {"imported": {"lmdb": names, "fingerprints": prints, "mpp": known_scales(self.mpp)}}

    def write(self) -> None:
        name, facts = self.slide.name, import_facts(self, self.counts, self.mpp)
        with contextlib.ExitStack() as stack:
            databases = [stack.enter_context(open_database(path)) for path in self.databases]
            # the authors' writer has quality 80 and 4:2:0 unless it is told otherwise
            writer = StoreWriter(
                self.store,
                self.mpp,
                patch_size=databases[0].side(name),
                attributes=facts,
                quality=80,
                subsampling="420",
            )
            with writer:
                for scale, (database, count) in enumerate(zip(databases, self.counts, strict=True)):
                    writer.write_encoded(database.jpegs(name, count), np.full((count, 2), -1), scale)
