"""What users already have → patch stores: the authors' LMDB, coordinates of other tools, folders of images."""

import contextlib
import hashlib
import io
import logging
import math
import pickle
import pickletools
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from e2e_abmilx.builder import CLAIMS, describe, fingerprint
from e2e_abmilx.errors import InputError
from e2e_abmilx.locks import hold
from e2e_abmilx.manifest import CachedSlide, read_manifest, update_manifest
from e2e_abmilx.patches import cut_patches
from e2e_abmilx.slide_files import SlideFile, find_slides
from e2e_abmilx.slides import SNAP, ReadPlan, Slide
from e2e_abmilx.store import PatchStore, StoreError, StoreWriter, jpeg_shape, leftovers
from e2e_abmilx.tiling import parse_scales
from e2e_abmilx.tissue import coarse_grid
from e2e_abmilx.workers import run_jobs

logger = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\ud800-\udfff]{1,200}")
_MAX_BYTES = 2**24  # no patch, and no table of slides, is larger
_MAX_TILES = 10**7  # of a slide: more than it has at its finest
_SIDES = (8, 4096)  # pixels along a patch, at least and at most
_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_MODES = ("RGB", "RGBA", "L", "P")  # 8 bits a channel; transparency is dropped


class SourceError(InputError):
    """Something that a user already has, and that cannot be imported."""


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
        SourceError: A database cannot be used, or was imported here in another way.
    """
    databases = (Path(fine),) if coarse is None else (Path(fine), Path(coarse))
    if len({path.resolve() for path in databases}) < len(databases):
        raise SourceError(f"fine and coarse are one database, {fine}; name two, or leave coarse out")
    scales = _parse(mpp) or (math.nan,) * len(databases)
    if len(scales) != len(databases):
        raise SourceError(f"mpp {list(scales)} is not one number for each of {len(databases)} databases")
    counts = []
    for path in databases:
        with _open_database(path) as database:
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
            jobs.append(_LmdbSlide(_Named(name, databases[0]), Path(out), databases, numbers, scales))
    return _import(jobs, failed, Path(out), workers)


def import_coords(
    coords: Path,
    slides: Path,
    out: Path,
    *,
    mpp: tuple[float | str, ...] | None = None,
    assume_mpp: float | None = None,
    workers: int = 2,
) -> list[CachedSlide]:
    """Cut slides into patches at coordinates that TRIDENT or CLAM found, without looking for tissue again.

    A patch has as many pixels as the coordinates file says. Where the finest scale is within 2 % of the file's,
    a patch covers what it covered there; otherwise it is centred on that. Coarser scales get a lattice of
    patches, each around the centre of at least one fine patch. A patch that overhangs its slide is moved inwards.

    Args:
        coords: Folder of ``.h5`` files: TRIDENT's ``…/patches`` with ``<slide>_patches.h5``, or CLAM's ``patches``
            with ``<slide>.h5``.
        slides: A folder, or a CSV with a column ``slide`` (or ``wsi``) of paths and, where the slide's own µm/px
            is wrong or missing, ``mpp``.
        out: Folder of the stores; made where it does not exist.
        mpp: Each scale as µm per pixel, or as a magnification such as ``20x``. By default the coordinates files'
            own, each slide's taken as 0.25, 0.5, 1 … where it is within 2 % of that.
        assume_mpp: Level-0 µm per pixel of slides that state none.
        workers: Slides cut at the same time, each by a process of its own.

    Returns:
        A row for each coordinates file, as in the manifest.

    Raises:
        SourceError: There are no coordinates, or a slide was imported here in another way.
        SlideError: There is no slide, or two of one name.
    """
    scales, by_name = _parse(mpp), {file.name: file for file in find_slides(slides)}
    jobs: dict[str, _TiledSlide] = {}
    failed = []
    for path in sorted(Path(coords).glob("*.h5")):
        name = path.stem if path.stem in by_name else path.stem.removesuffix("_patches")
        if name in jobs:
            raise SourceError(f"{jobs[name].coords} and {path} both belong to {name!r}; remove one of them")
        if name in by_name:
            jobs[name] = _TiledSlide(by_name[name], Path(out), path, scales, assume_mpp)
        else:
            failed.append(
                CachedSlide(name, "failed", f"{path} has no slide: none in {slides} is named {name!r}")
            )
    if not jobs and not failed:
        raise SourceError(f"{coords} holds no .h5 file; give the folder `patches` that TRIDENT or CLAM wrote")
    if left := len(by_name) - len(jobs):
        logger.warning("%d slides in %s have no coordinates in %s", left, slides, coords)
    return _import(list(jobs.values()), failed, Path(out), workers)


def import_images(
    folder: Path, out: Path, *, mpp: float | None = None, workers: int = 2
) -> list[CachedSlide]:
    """Make patch stores of images: a folder for each slide, in it a PNG, JPEG or TIFF for each patch.

    Where the names of all images of a slide end in ``x_y``, alone or after the slide's name and ``_``, as in
    ``s1/s1_1024_512.png``, these are taken as the level-0 pixel of the patch's top left corner; otherwise it is
    unknown. Baseline JPEG files are stored unchanged.

    Args:
        folder: Folder of the slides' folders.
        out: Folder of the stores; made where it does not exist.
        mpp: µm per pixel of the images; unknown by default.
        workers: Slides imported at the same time, each by a process of its own.

    Returns:
        A row for each slide, as in the manifest.

    Raises:
        SourceError: There is no folder of images, or one was imported here in another way.
    """
    (scale,) = _parse(None if mpp is None else (mpp,)) or (math.nan,)
    slides = sorted(path for path in Path(folder).glob("[!.]*") if path.is_dir())
    if not slides:
        raise SourceError(f"{folder} holds no folder; it needs one for each slide, with the images in it")
    jobs = [_ImageFolder(_Named(path.name, path), Path(out), scale) for path in slides]
    return _import(jobs, [], Path(out), workers)


class _Named(NamedTuple):
    """A slide that is no slide file: its name, and where its patches are."""

    name: str
    path: Path


@dataclass(frozen=True)
class _Source(ABC):
    """One slide in some other form; travels to worker processes."""

    slide: SlideFile | _Named
    out: Path

    @property
    def store(self) -> Path:
        """Where its store will be."""
        return self.out / f"{self.slide.name}.zarr"

    @property
    def claim(self) -> Path:
        """The lock file of whoever is writing it."""
        return self.out / CLAIMS / f"{self.slide.name}.lock"

    @abstractmethod
    def origin(self) -> dict[str, object]:
        """What the store is made from and how; recorded in it, and compared when it is there already."""

    @abstractmethod
    def write(self) -> None:
        """Write the store."""


@dataclass(frozen=True)
class _LmdbSlide(_Source):
    databases: tuple[Path, ...]
    counts: tuple[int, ...]
    mpp: tuple[float, ...]

    def origin(self) -> dict[str, object]:
        prints = [fingerprint(path) for path in self.databases]
        return {
            "lmdb": [path.name for path in self.databases],
            "fingerprints": prints,
            "mpp": _known(self.mpp),
        }

    def write(self) -> None:
        name, facts = self.slide.name, _facts(self, self.counts, self.mpp)
        with contextlib.ExitStack() as stack:
            databases = [stack.enter_context(_open_database(path)) for path in self.databases]
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


@dataclass(frozen=True)
class _ImageFolder(_Source):
    mpp: float

    def origin(self) -> dict[str, object]:
        sizes = [(path.name, path.stat().st_size) for path in self._files()]
        digest = hashlib.sha256(repr(sizes).encode()).hexdigest()[:32]
        return {"images": self.slide.path.name, "fingerprints": [digest], "mpp": _known([self.mpp])}

    def write(self) -> None:
        files = self._files()
        if not files:
            raise SourceError(f"{self.slide.path} holds no image: no file ends in {', '.join(_IMAGES)}")
        coords = self._coords(files)
        with _open_image(files[0]) as first:
            side = first.width
        facts = _facts(self, [len(files)], [self.mpp])
        with StoreWriter(self.store, [self.mpp], patch_size=side, attributes=facts) as writer:
            for patch, file in enumerate(files):
                _write_image(writer, file, side, coords[patch : patch + 1])

    def _files(self) -> list[Path]:
        return sorted(path for path in self.slide.path.iterdir() if path.suffix.lower() in _IMAGES)

    def _coords(self, files: Sequence[Path]) -> np.ndarray:
        name = re.compile(rf"(?:{re.escape(self.slide.name)}_)?(\d{{1,9}})_(\d{{1,9}})")
        found = [name.fullmatch(file.stem) for file in files]
        return np.array([[int(m[1]), int(m[2])] if m and all(found) else [-1, -1] for m in found])


@dataclass(frozen=True)
class _TiledSlide(_Source):
    slide: SlideFile
    coords: Path
    mpp: tuple[float, ...]
    assume_mpp: float | None

    def origin(self) -> dict[str, object]:
        prints = [fingerprint(self.coords), fingerprint(self.slide.path)]
        settings = {"assume_mpp": self.assume_mpp, "override_mpp": self.slide.mpp}
        return {"coords": self.coords.name, "fingerprints": prints, "mpp": list(self.mpp), **settings}

    def write(self) -> None:
        with Slide(self.slide.path) as slide:
            tiles = _read_tiles(self.coords, slide)
            resolution = slide.resolution(self.assume_mpp, override_mpp=self.slide.mpp)
            own = tiles.footprint * resolution.mpp / tiles.patch_size
            scales = self.mpp or (_conventional(own),)
            # within 2 % of the files' own scale, that one is meant: their patches stay as they are
            sampled = (own if abs(own / scales[0] - 1) <= SNAP else scales[0], *scales[1:])
            plans = [slide.plan(scale, tiles.patch_size, resolution.mpp) for scale in sampled]
            grids = _lay_out(tiles, slide, plans)
            facts = {
                **_facts(self, [len(grid) for grid in grids], [plan.mpp for plan in plans]),
                "slide_file": self.slide.path.name,
                "slide_size": list(slide.size),
                "slide_mpp": resolution.mpp,
                "slide_mpp_source": resolution.source,
                "fingerprint": fingerprint(self.slide.path),
                "footprints": [plan.footprint for plan in plans],
            }
            with StoreWriter(self.store, scales, patch_size=tiles.patch_size, attributes=facts) as writer:
                writer.write_thumbnail(slide.thumbnail(1024))
                for scale, (plan, grid) in enumerate(zip(plans, grids, strict=True)):
                    for patches, kept in cut_patches(slide, plan, grid, tiles.patch_size):
                        writer.write(patches, kept, scale)


def _import(
    jobs: Sequence[_Source], failed: Sequence[CachedSlide], out: Path, workers: int
) -> list[CachedSlide]:
    """Write the stores that are not there yet; add a row for each slide to the manifest."""
    _refuse_other_origins(jobs)
    out.mkdir(parents=True, exist_ok=True)
    earlier = read_manifest(out)
    ready = [describe(job, earlier) for job in jobs if job.store.exists()]  # type: ignore[arg-type]
    rows = [*failed, *ready]
    update_manifest(out, rows)
    todo = [job for job in jobs if not job.store.exists()]
    new = run_jobs(_import_slide, todo, workers, None)  # type: ignore[arg-type]
    rows += tqdm(new, total=len(todo), desc="importing", unit="slide", disable=not todo)
    with contextlib.suppress(OSError):  # absent, or another process is still at work
        (out / CLAIMS).rmdir()
    for row in rows:
        if row.status == "failed":
            logger.warning("set aside %s: %s", row.slide, row.reason)
    return sorted(rows)


def _import_slide(job: _Source) -> CachedSlide:
    """Write the store of one slide, or say why not; runs in a worker process."""
    job.claim.parent.mkdir(exist_ok=True)
    with hold(job.claim, wait=True):  # another process may be at it: then its store is there afterwards
        started = time.perf_counter()
        if job.store.exists():
            return describe(job, read_manifest(job.out))  # type: ignore[arg-type]
        for partial in leftovers(job.store):
            shutil.rmtree(partial)
        try:
            job.write()
            row = describe(job, {})  # type: ignore[arg-type]
            row = row._replace(seconds=round(time.perf_counter() - started, 2))
        except InputError as error:
            row = CachedSlide(job.slide.name, "failed", str(error))
        except Exception as error:  # noqa: BLE001 - whatever a reader raises on this slide, the others go on
            row = CachedSlide(job.slide.name, "failed", f"{job.slide.path}: {type(error).__name__}: {error}")
        update_manifest(job.out, [row])
        return row


def _refuse_other_origins(jobs: Sequence[_Source]) -> None:
    for job in jobs:
        if not job.store.exists():
            continue
        made, wanted = PatchStore(job.store).attributes.get("imported", {}), job.origin()
        changed = [
            f"{key} {made.get(key)} there, {value} now"
            for key, value in wanted.items()
            if made.get(key) != value
        ]
        if changed:
            raise SourceError(
                f"{job.store} was made from something else, or in another way: {'; '.join(changed)}."
                " Give another folder, the old settings, or remove this store"
            )


def _facts(job: _Source, counts: Sequence[int], mpp: Sequence[float]) -> dict[str, object]:
    """What every imported store records."""
    return {
        "imported": job.origin(),
        "slide_mpp": None,
        "slide_mpp_source": "unknown",
        "patch_mpp": _known(mpp),
        "grid_patches": list(counts),
    }


def _known(mpp: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(scale) else scale for scale in mpp]


def _parse(mpp: Sequence[float | str] | None) -> tuple[float, ...]:
    """µm/px of the scales asked for, finest first; none where they were not stated."""
    scales = parse_scales(mpp or ())
    if not all(0 < scale < math.inf for scale in scales) or len(set(scales)) < len(scales):
        raise SourceError(f"mpp {list(scales)}: give different positive µm/px, for example [0.5, 1.0]")
    return scales


class _Database(NamedTuple):
    """An LMDB of the authors, open: keys ``<slide>-<i>`` → pickled JPEG bytes, ``__pn__`` → patches a slide."""

    path: Path
    entries: int
    transaction: Any

    def counts(self) -> dict[str, int]:
        """Number of patches of each slide."""
        counts = self._get("__pn__")
        if counts is None:
            raise SourceError(
                f"{self.path} has no table of slides (__pn__), which is written last: its writing was interrupted;"
                " run the authors' save_patches.py on it again, which goes on where it stopped"
            )
        if not isinstance(counts, dict) or not all(
            isinstance(name, str) and isinstance(count, int) and 0 <= count <= self.entries
            for name, count in counts.items()
        ):
            raise SourceError(
                f"{self.path} has a table of slides (__pn__) that is not a number of patches, at most"
                f" {self.entries}, for each name; make the database anew"
            )
        return counts

    def side(self, slide: str) -> int:
        """Pixels along a patch."""
        (first,) = self.jpegs(slide, 1)
        try:
            return jpeg_shape(first)[0]
        except ValueError as error:
            raise SourceError(
                f"{self.path} has no patch at {slide}-0: {error}; make the database anew"
            ) from error

    def jpegs(self, slide: str, count: int) -> Iterator[bytes]:
        """The patches of a slide, in the order of their numbers."""
        for patch in range(count):
            jpeg = self._get(f"{slide}-{patch}")
            if not isinstance(jpeg, bytes):
                what = "no value" if jpeg is None else f"a {type(jpeg).__name__} instead of JPEG bytes"
                raise SourceError(f"{self.path} has {what} at {slide}-{patch}; make the database anew")
            yield jpeg

    def _get(self, key: str) -> object:
        value = self.transaction.get(key.encode())
        try:
            return None if value is None else _unpickle(value)
        except Exception as error:  # damaged pickles raise many kinds
            raise SourceError(
                f"{self.path} has a pickle at {key} that is damaged or holds something else than bytes, str, int,"
                f" list and dict ({error}); nothing of it was run; make the database anew"
            ) from error


@contextlib.contextmanager
def _open_database(path: Path) -> Iterator[_Database]:
    """Open an LMDB, and close it at the end: a process cannot open it twice."""
    try:
        import lmdb
    except ImportError as error:
        raise SourceError("reading an LMDB needs py-lmdb; `pip install e2e-abmilx[lmdb]`") from error
    try:
        with (
            lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False) as environment,
            environment.begin(buffers=True) as transaction,
        ):
            table = environment.stat()
            size = (environment.info()["last_pgno"] + 1) * table["psize"]
            if path.stat().st_size < size:  # beyond the end of the file, reading would kill the process
                raise SourceError(f"{path} is cut off: it needs {size} bytes; copy it again")
            yield _Database(path, table["entries"], transaction)
    except lmdb.Error as error:
        raise SourceError(
            f"{path} cannot be read as an LMDB ({error}); check the path, or copy it again"
        ) from error


#: What a pickle of bytes, str, int, list and dict is made of. Nothing here names, calls or makes anything else.
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINBYTES",
    "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "EMPTY_LIST",
    "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """A second lock: opcodes that ask for a name are refused before it reads."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickle(data: memoryview) -> object:
    if len(data) > _MAX_BYTES:
        raise pickle.UnpicklingError(f"it has {len(data)} bytes, and no patch has more than {_MAX_BYTES}")
    for opcode, argument, _ in pickletools.genops(bytes(data)):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"it has the opcode {opcode.name}")
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(data):  # as many entries are allocated
            raise pickle.UnpicklingError(f"it has a memo of {argument} entries")
    return _Unpickler(io.BytesIO(data)).load()


class _Tiles(NamedTuple):
    """What a coordinates file says: level-0 ``(x, y)``, pixels of a patch, level-0 pixels that it covers."""

    coords: np.ndarray
    patch_size: int
    footprint: float


def _read_tiles(path: Path, slide: Slide) -> _Tiles:
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
    if not _SIDES[0] <= patch_size <= _SIDES[1]:
        raise SourceError(f"{path} has patches of {patch_size} px; they must have {_SIDES[0]} to {_SIDES[1]}")
    return _Tiles(coords, patch_size, footprint)


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


def _conventional(mpp: float) -> float:
    """The nearest of … 0.25, 0.5, 1 … where it is within 2 %, so that slides of one cohort have one scale."""
    nearest = 2.0 ** round(math.log2(mpp))
    return nearest if abs(mpp / nearest - 1) <= SNAP else mpp


def _lay_out(tiles: _Tiles, slide: Slide, plans: Sequence[ReadPlan]) -> list[np.ndarray]:
    """Corners of the patches of each scale: centred on the tiles at the finest, around their centres at others."""
    finest = plans[0].footprint
    room = np.array(slide.size) - math.ceil(finest)
    fine = np.clip(tiles.coords + round((tiles.footprint - finest) / 2), 0, np.maximum(room, 0))
    anywhere = np.ones((1, 1), bool)  # what is worth a patch was decided before
    grids = [fine] + [
        coarse_grid(
            anywhere, slide.size, fine, fine_footprint=finest, footprint=plan.footprint, min_tissue=0.0
        )
        for plan in plans[1:]
    ]
    if (room < 0).any() or not all(map(len, grids)):
        raise SourceError(
            f"{slide.path} is {slide.size[0]} × {slide.size[1]} pixels, and patches of {tiles.patch_size} px at"
            f" {plans[-1].mpp:.3g} µm/px do not fit into it; ask for finer scales"
        )
    return grids


def _write_image(writer: StoreWriter, file: Path, side: int, coords: np.ndarray) -> None:
    with _open_image(file) as image:
        if image.size != (side, side) or image.mode not in _MODES:
            raise SourceError(
                f"{file} is {image.width} × {image.height} pixels of {image.mode}; the images of a slide must be"
                f" square, all of one size, here {side}, and of {', '.join(_MODES)}"
            )
        if image.format == "JPEG":
            with contextlib.suppress(StoreError):  # a grey or progressive one is encoded anew
                writer.write_encoded([file.read_bytes()], coords)
                return
        pixels = np.asarray(image.convert("RGB"))
    writer.write(pixels[None], coords)


@contextlib.contextmanager
def _open_image(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # decoders raise many kinds
        raise SourceError(
            f"{file} cannot be read as an image ({error}); remove it or make it anew"
        ) from error
