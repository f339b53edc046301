"""What users already have → patch stores: the authors' LMDB, coordinates of other tools, folders of images."""

import contextlib
import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from e2e_abmilx.bounds import read_bounds
from e2e_abmilx.builder import StoreJob, fingerprint
from e2e_abmilx.cache import make_stores
from e2e_abmilx.coordinates import Tiles, read_tiles
from e2e_abmilx.crosscheck import CHECK_PATCHES, Check, check_count, compare_readers
from e2e_abmilx.databases import open_database
from e2e_abmilx.errors import InputError, SourceError
from e2e_abmilx.manifest import CachedSlide
from e2e_abmilx.patches import cut_patches
from e2e_abmilx.slide_files import SlideFile, find_slides
from e2e_abmilx.slides import SNAP, ReadPlan, Slide
from e2e_abmilx.slides.listing import plain_name
from e2e_abmilx.store import PatchStore, StoreError, StoreWriter
from e2e_abmilx.tile_names import NamedImages, Names, at_an_edge, numbers_in_names, tell_names
from e2e_abmilx.tiling import parse_scales
from e2e_abmilx.tissue import coarse_grid

logger = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\ud800-\udfff]{1,200}")
_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_MODES = ("RGB", "RGBA", "L", "P")  # 8 bits a channel; transparency is dropped


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
    scales = _parse(mpp) or (math.nan,) * len(databases)
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
            jobs.append(_LmdbSlide(_Named(name, databases[0]), Path(out), databases, numbers, scales))
    return make_stores(jobs, Path(out), workers, failed=failed)


def import_coords(
    coords: Path,
    slides: Path,
    out: Path,
    *,
    mpp: tuple[float | str, ...] | None = None,
    assume_mpp: float | None = None,
    check_patches: int = CHECK_PATCHES,
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
        mpp: Each scale as µm per pixel, as a magnification such as ``20x``, or as a pyramid level such as
            ``level1``. By default the coordinates files' own, each slide's taken as 0.25, 0.5, 1 … where it is within
            2 % of that.
        assume_mpp: Level-0 µm per pixel of slides that state neither µm/px nor an objective power.
        check_patches: Patches a scale that are decoded again by the other reader of the slide, as when caching.
        workers: Slides cut at the same time, each by a process of its own.

    Returns:
        A row for each coordinates file, as in the manifest.

    Raises:
        SourceError: There are no coordinates, or two files of one slide.
        SlideError: There is no slide, or two of one name.
        TilingError: A scale is neither µm/px nor a magnification nor a level that a slide has.
        CheckError: check_patches is negative.
        CacheError: A slide was imported here from something else or in another way.
    """
    check_count(check_patches)
    files = find_slides(slides)
    scales, by_name = _parse(mpp, files, assume_mpp), {file.name: file for file in files}
    jobs: dict[str, _TiledSlide] = {}
    failed = []
    for path in sorted(Path(coords).glob("*.h5")):
        stem = plain_name(path)
        name = stem if stem in by_name else stem.removesuffix("_patches")
        if name in jobs:
            raise SourceError(f"{jobs[name].coords} and {path} both belong to {name!r}; remove one of them")
        if name in by_name:
            jobs[name] = _TiledSlide(by_name[name], Path(out), path, scales, assume_mpp, check_patches)
        else:
            failed.append(
                CachedSlide(name, "failed", f"{path} has no slide: none in {slides} is named {name!r}")
            )
    if not jobs and not failed:
        raise SourceError(f"{coords} holds no .h5 file; give the folder `patches` that TRIDENT or CLAM wrote")
    if left := len(by_name) - len(jobs):
        logger.warning("%d slides in %s have no coordinates in %s", left, slides, coords)
    return make_stores(list(jobs.values()), Path(out), workers, failed=failed)


def import_images(
    folder: Path, out: Path, *, mpp: float | None = None, names: Names | None = None, workers: int = 2
) -> list[CachedSlide]:
    """Make patch stores of images: a folder for each slide, in it a PNG, JPEG or TIFF for each patch.

    Where the names of all images of a slide end in two numbers, alone or after the slide's name and ``_``, as in
    ``s1/s1_1024_512.png``, these may be the level-0 pixel ``x_y`` of the patch's top left corner, or, of DeepZoom
    tiles, ``column_row``; where tiles lie in level-0 pixels is unknown, as that of images of other names. Images at the
    edge of a slide that are narrower or lower than its others are left out, and counted in the manifest as unreadable.
    Baseline JPEG files are stored unchanged.

    Args:
        folder: Folder of the slides' folders.
        out: Folder of the stores; made where it does not exist.
        mpp: µm per pixel of the images; unknown by default.
        names: What two numbers in names are, ``"pixels"`` or ``"tiles"``; by default what they can only be.
        workers: Slides imported at the same time, each by a process of its own.

    Returns:
        A row for each slide, as in the manifest.

    Raises:
        SourceError: There is no folder of images, or numbers in their names may be pixels as well as tiles.
        CacheError: A slide was imported here from something else or in another way.
    """
    (scale,) = _parse(None if mpp is None else (mpp,)) or (math.nan,)
    slides = sorted(path for path in Path(folder).glob("[!.]*") if path.is_dir())
    if not slides:
        raise SourceError(f"{folder} holds no folder; it needs one for each slide, with the images in it")
    if _are_levels(slides):
        raise SourceError(
            f"{folder} is the DeepZoom pyramid of one slide: its folders {slides[0].name} to {slides[-1].name} are levels;"
            " put those of one level into a folder named after the slide, beside the other slides'"
        )
    meaning = _read_names(Path(folder), slides, names)
    jobs = [_ImageFolder(_Named(path.name, path), Path(out), scale, meaning) for path in slides]
    return make_stores(jobs, Path(out), workers)


def _are_levels(folders: Sequence[Path]) -> bool:
    """Whether folders are 0, 1, 2 … of which the first has the one tile 0_0: levels of a DeepZoom pyramid."""
    if {path.name for path in folders} != set(map(str, range(len(folders)))):
        return False
    first = next(path for path in folders if path.name == "0")
    return [path.stem for path in _images_in(first)] == ["0_0"]


def _read_names(folder: Path, slides: Sequence[Path], names: Names | None) -> Names:
    """What the numbers in the names of images are, said in one line of the log."""
    numbered: dict[str, NamedImages] = {}
    for slide in slides:
        files = _images_in(slide)
        numbers = numbers_in_names(slide.name, files)
        if numbers is not None:
            numbered[slide.name] = NamedImages(numbers, _largest_side(files))
    if not numbered:
        return names or "pixels"
    meaning = names or tell_names(folder, numbered)
    if meaning == "tiles":
        logger.warning(
            "the images in %s are named after their columns and rows, as DeepZoom tiles are: where they lie in level-0"
            " pixels is unknown, so that no heatmaps can be drawn; if they are level-0 pixels, say names=pixels (--names)",
            folder,
        )
    else:
        logger.info("the images of %d slides are named after their level-0 pixels", len(numbered))
    return meaning


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in _IMAGES)


def _largest_side(files: Sequence[Path]) -> int:
    """Pixels along the longest side of a few images; what cannot be opened is named later, with its slide."""
    longest = 1
    for file in files[:: max(1, len(files) // 8)]:
        with contextlib.suppress(SourceError), _open_image(file) as image:
            longest = max(longest, *image.size)
    return longest


class _Named(NamedTuple):
    """A slide that is no slide file: its name, and where its patches are."""

    name: str
    path: Path


@dataclass(frozen=True)
class _LmdbSlide(StoreJob):
    databases: tuple[Path, ...]
    counts: tuple[int, ...]
    mpp: tuple[float, ...]

    def origin(self) -> dict[str, object]:
        prints = [fingerprint(path) for path in self.databases]
        names = [path.name for path in self.databases]
        return {"imported": {"lmdb": names, "fingerprints": prints, "mpp": _known(self.mpp)}}

    def write(self) -> None:
        name, facts = self.slide.name, _facts(self, self.counts, self.mpp)
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


@dataclass(frozen=True)
class _ImageFolder(StoreJob):
    mpp: float
    names: Names

    def origin(self) -> dict[str, object]:
        files = _images_in(self.slide.path)
        sizes = [(path.name, path.stat().st_size) for path in files]
        digest = hashlib.sha256(repr(sizes).encode()).hexdigest()[:32]
        source = {"images": self.slide.path.name, "fingerprints": [digest]}
        tiles = self.names == "tiles" and numbers_in_names(self.slide.name, files) is not None
        return {"imported": {**source, "mpp": _known([self.mpp]), "names": "tiles" if tiles else None}}

    def write(self) -> None:
        files = _images_in(self.slide.path)
        if not files:
            raise SourceError(f"{self.slide.path} holds no image: no file ends in {', '.join(_IMAGES)}")
        sizes = [_size(file) for file in files]
        side = Counter(sizes).most_common(1)[0][0][0]
        numbers = numbers_in_names(self.slide.name, files)
        left_out = np.zeros(len(files), bool) if numbers is None else at_an_edge(numbers, sizes, side)
        if left_out.any():
            logger.warning(
                "%s: %d of %d images are left out; at the edge of the slide they are smaller than %d × %d pixels",
                self.slide.path, left_out.sum(), len(files), side, side,
            )  # fmt: skip
        unknown = np.full((len(files), 2), -1)
        coords = unknown if numbers is None or self.names == "tiles" else numbers
        facts = _facts(self, [len(files)], [self.mpp])
        with StoreWriter(self.store, [self.mpp], patch_size=side, attributes=facts) as writer:
            for patch in np.flatnonzero(~left_out):
                _write_image(writer, files[patch], side, coords[patch : patch + 1])


@dataclass(frozen=True)
class _TiledSlide(StoreJob):
    slide: SlideFile
    coords: Path
    mpp: tuple[float, ...]
    assume_mpp: float | None
    check_patches: int = CHECK_PATCHES

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
            # within 2 % of the files' own scale, that one is meant: their patches stay as they are
            sampled = (own if abs(own / scales[0] - 1) <= SNAP else scales[0], *scales[1:])
            plans = [slide.plan(scale, tiles.patch_size, resolution.mpp) for scale in sampled]
            grids = _lay_out(tiles, slide, plans)
            facts = {
                **_facts(self, [len(grid) for grid in grids], [plan.mpp for plan in plans]),
                "slide_file": self.slide.path.name,
                "slide_size": list(slide.size),
                "slide_bounds": read_bounds(slide.properties),
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


def _facts(job: StoreJob, counts: Sequence[int], mpp: Sequence[float]) -> dict[str, object]:
    """What every imported store records."""
    return {
        **job.origin(),
        "slide_mpp": None,
        "slide_mpp_source": "unknown",
        "patch_mpp": _known(mpp),
        "grid_patches": list(counts),
    }


def _known(mpp: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(scale) else scale for scale in mpp]


def _parse(
    mpp: Sequence[float | str] | None, slides: Sequence[SlideFile] = (), assume_mpp: float | None = None
) -> tuple[float, ...]:
    """µm/px of the scales asked for, finest first; none where they were not stated."""
    scales = parse_scales(mpp or (), slides, assume_mpp)
    if not all(0 < scale < math.inf for scale in scales) or len(set(scales)) < len(scales):
        raise SourceError(f"mpp {list(scales)}: give different positive µm/px, for example [0.5, 1.0]")
    return scales


def _conventional(mpp: float) -> float:
    """The nearest of … 0.25, 0.5, 1 … where it is within 2 %, so that slides of one cohort have one scale."""
    nearest = 2.0 ** round(math.log2(mpp))
    return nearest if abs(mpp / nearest - 1) <= SNAP else mpp


def _lay_out(tiles: Tiles, slide: Slide, plans: Sequence[ReadPlan]) -> list[np.ndarray]:
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


def _size(file: Path) -> tuple[int, int]:
    with _open_image(file) as image:
        return image.size


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
