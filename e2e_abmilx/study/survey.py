"""A look at a few slides: their µm per pixel, how many patches they hold, and which are copies of each other."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cache.build import SlideJob, lay_out
from e2e_abmilx.cache.jobs import fingerprint
from e2e_abmilx.cache.tiling import Tiling
from e2e_abmilx.errors import InputError
from e2e_abmilx.slides import SNAP, Resolution, Slide
from e2e_abmilx.slides.duplicates import SAME_SLIDE, hash_distance, thumbnail_hash
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store.codec import JPEG_QUALITY

_OPENED = 200  # slides whose resolution is read
_LOOKED_AT = 64  # slides whose thumbnail is drawn
_COUNTED = 8  # slides whose patches are counted
_ENOUGH = 16  # patches: with fewer the head has little to choose from
_THUMBNAIL = 512  # pixels
_OVERLAP, _MIN_TISSUE = 0.0, 0.5  # the defaults of cache_slides, with which a fit caches


class Survey(NamedTuple):
    """What a look at the slides has found.

    Attributes:
        resolutions: µm per pixel of each slide that was opened, and the origin of the number.
        unstated: Slides that state no µm per pixel.
        unreadable: Slides that cannot be used, with the reasons.
        copies: Pairs of slides that show the same, and how they were recognised.
        looked_at: Number of slides whose thumbnails were compared.
    """

    resolutions: dict[str, Resolution]
    unstated: list[str]
    unreadable: dict[str, str]
    copies: list[tuple[str, str, str]]
    looked_at: int


class Cut(NamedTuple):
    """How to cut the slides.

    Attributes:
        mpp: µm per pixel of the fine and the coarse scale.
        patch_size: Side of a patch, pixels.
        patches: Patches at both scales, of each slide whose patches were counted.
        without: Slides that have no patch, with the reasons.
    """

    mpp: tuple[float, float]
    patch_size: int
    patches: list[int]
    without: dict[str, str]

    @property
    def median(self) -> int:
        """Median number of patches; 0 if no slide has any."""
        return int(statistics.median(self.patches)) if self.patches else 0


def survey_slides(files: Sequence[SlideFile], assume_mpp: float | None) -> Survey:
    """Open some of the slides, evenly spaced, read their resolution, and look for copies.

    Copies with the same bytes are found among all slides, and copies that only look alike among those whose thumbnail is
    drawn.

    Args:
        files: The slides.
        assume_mpp: µm per pixel of slides that state none.
    """
    survey = Survey({}, [], {}, [], 0)
    hashes: dict[str, str] = {}
    looked_at = {file.name for file in spread(files, _LOOKED_AT)}
    for file in spread(files, _OPENED):
        try:
            with Slide(file.path) as slide:
                if file.name in looked_at and (seen := thumbnail_hash(slide.thumbnail(_THUMBNAIL))):
                    hashes[file.name] = seen
                _read_resolution(slide, file, assume_mpp, survey)
        except InputError as error:
            survey.unreadable[file.name] = str(error)
    copies = {(one, other): how for one, other, how in (*_same_looks(hashes), *_same_bytes(files))}
    return survey._replace(copies=[(*pair, how) for pair, how in copies.items()], looked_at=len(hashes))


def spread(files: Sequence[SlideFile], most: int) -> list[SlideFile]:
    """Return at most so many of the slides, evenly spaced."""
    return [files[index * len(files) // most] for index in range(most)] if len(files) > most else list(files)


def choose_cut(files: Sequence[SlideFile], survey: Survey, assume_mpp: float | None) -> Cut:
    """Choose scales and patch size: 256 px at 0.5 and 1.0 µm/px, or what coarser or smaller slides allow.

    The fine scale is not finer than the coarsest slide. Smaller patches, and then the finest scale that all slides
    have, are chosen where half of the slides would hold fewer than 16 fine and coarse patches.
    """
    usable = [file for file in files if file.name in survey.resolutions]
    coarsest = max(survey.resolutions[file.name].mpp for file in usable)
    finest = _two_digits(coarsest)
    base = 0.5 if coarsest <= 0.5 * (1 + SNAP) else finest
    tried = list[Cut]()
    for mpp, side in dict.fromkeys([(base, 256), (base, 128), (min(base, finest), 128), (min(base, finest), 64)]):
        cut = _count_patches(spread(usable, _COUNTED), (mpp, 2 * mpp), side, assume_mpp)
        tried.append(cut)
        if cut.median >= _ENOUGH and len(cut.without) <= len(cut.patches):
            break
    return max(tried, key=lambda cut: (min(cut.median, _ENOUGH), -len(cut.without), cut.patch_size))


def _two_digits(mpp: float) -> float:
    """Return µm per pixel with two digits, so that a slide of ``mpp`` can be read at that scale."""
    nearest = float(f"{mpp:.2g}")
    step = 10.0 ** (math.floor(math.log10(mpp)) - 1)
    return nearest if nearest * (1 + SNAP) >= mpp else float(f"{nearest + step:.2g}")


def _read_resolution(slide: Slide, file: SlideFile, assume_mpp: float | None, survey: Survey) -> None:
    try:
        survey.resolutions[file.name] = slide.resolution(assume_mpp, override_mpp=file.mpp)
    except InputError:
        slide.resolution(1.0)  # refuses pixels that are not square
        survey.unstated.append(file.name)


def _same_bytes(files: Sequence[SlideFile]) -> list[tuple[str, str, str]]:
    """Return pairs of files with the same size, beginning and end."""
    by_size: dict[int, list[SlideFile]] = defaultdict(list)
    for file in files:
        if file.path.is_file():
            by_size[file.path.stat().st_size].append(file)
    first: dict[str, str] = {}
    pairs = []
    for file in (one for alike in by_size.values() if len(alike) > 1 for one in alike):
        other = first.setdefault(fingerprint(file.path), file.name)
        if other != file.name:
            pairs.append((other, file.name, "the same bytes"))
    return pairs


def _same_looks(hashes: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return pairs of slides with similar thumbnails."""
    return [
        (one, other, "thumbnails that look alike")
        for one, other in combinations(hashes, 2)
        if hash_distance(hashes[one], hashes[other]) <= SAME_SLIDE
    ]


def _count_patches(files: Sequence[SlideFile], mpp: tuple[float, float], side: int, assume_mpp: float | None) -> Cut:
    tiling = Tiling(mpp, side, _OVERLAP, _MIN_TISSUE, JPEG_QUALITY, assume_mpp)
    cut = Cut(mpp, side, [], {})
    for file in files:
        try:
            with Slide(file.path) as slide:
                layout = lay_out(slide, SlideJob(file, Path(), tiling, 1))
                cut.patches.append(sum(len(grid) for grid in layout.grids))
        except InputError as error:
            cut.without[file.name] = str(error)
    return cut
