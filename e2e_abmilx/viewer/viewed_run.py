"""A run that is being looked at: its cases with their slides, and the pictures of them."""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import NamedTuple

import numpy as np
from PIL import Image

from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps.case_map import CaseMap, SlideMap
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.format import StoreError
from e2e_abmilx.viewer.jpeg_cache import JpegCache
from e2e_abmilx.viewer.levels import Box, tile_box
from e2e_abmilx.viewer.open_slides import OpenSlides
from e2e_abmilx.viewer.reviews import Reviews
from e2e_abmilx.viewer.run_cases import RunCases
from e2e_abmilx.viewer.slide_sources import SlideSource, SlideSources

logger = logging.getLogger(__name__)

_CACHE_BYTES = 96 * 2**20  # of tiles
_OPEN_CASES = 8
_THUMBNAIL = 192  # pixels
_QUALITY = 85
_AT_A_TIME = 4  # pictures that are drawn at the same time, so that many requests do not take memory together


class NotFoundError(InputError):
    """There is no such case, slide, tile or patch."""


class ViewedSlide(NamedTuple):
    """A slide of a case: what it is drawn from, and its map in each run, None where a run has none."""

    source: SlideSource
    maps: tuple[SlideMap | None, ...]


class ViewedCase(NamedTuple):
    """A case: its name, its slides, the score of the contributions in each run, and what is missing, as sentences."""

    name: str
    slides: tuple[ViewedSlide, ...]
    scores: tuple[str | None, ...]
    notes: tuple[str, ...]


class ViewedRun:
    """The cases of a run by number, most wrong first, with their slides and pictures; threads may share it.

    Args:
        run: Folder of the run.
        compare: Folder of a second run, whose maps are shown beside those of the first.
        slides: Where slide files have been moved to.

    Raises:
        InputError: A folder holds no predictions.
    """

    def __init__(self, run: Path, compare: Path | None = None, slides: Path | None = None) -> None:
        if slides is not None and not slides.is_dir():
            raise InputError(f"slides is {slides}, which is no folder; name the folder that slide files were moved to")
        self.runs = [RunCases.read(folder) for folder in (run, compare) if folder is not None]
        self.names = self.runs[0].names
        self.reviews = Reviews(run)
        self._open_slides = OpenSlides()
        self._sources = [SlideSources(one, slides, self._open_slides) for one in self.runs]
        self._jpegs = JpegCache(_CACHE_BYTES)
        self._locks = [Lock() for _ in self.names]
        self._load = lru_cache(_OPEN_CASES)(self._load_case)
        self._drawing = BoundedSemaphore(_AT_A_TIME)
        self._damaged: dict[tuple[int, int], str] = {}

    def case(self, number: int) -> ViewedCase:
        """Return a case; raise a NotFoundError if there is none of this number."""
        if not 0 <= number < len(self.names):
            raise NotFoundError(f"there is no case {number}; the run has cases 0 to {len(self.names) - 1}")
        # so that a case is read once, although a browser asks for many of its tiles at a time
        with self._locks[number]:
            return self._load(number)

    def slide(self, case: int, slide: int) -> ViewedSlide:
        """Return a slide of a case."""
        slides = self.case(case).slides
        if not 0 <= slide < len(slides):
            raise NotFoundError(f"case {case} has no slide {slide}")
        return slides[slide]

    def note(self, case: int, slide: int) -> str | None:
        """Return why a slide is not shown as its file holds it, as far as that is known by now."""
        return self._damaged.get((case, slide)) or self.slide(case, slide).source.note

    def tile(self, case: int, slide: int, level: int, column: int, row: int) -> bytes:
        """Return a tile as JPEG.

        A tile that the file holds damaged is drawn from the patch store.
        """
        found = tile_box(self.slide(case, slide).source.picture.size, level, column, row)
        if found is None:
            raise NotFoundError(f"slide {slide} of case {case} has no tile {level}_{column}_{row}")
        key = (case, slide, level, column, row)
        return self._jpegs.get(key, lambda: as_jpeg(self.draw(case, slide, *found)))

    def thumbnail(self, case: int) -> bytes:
        """Return the first slide of a case in small, as JPEG."""
        if not self.case(case).slides:
            raise NotFoundError(f"no slide of case {case} is found")
        return self._jpegs.get(case, lambda: as_jpeg(self.draw_whole(case, 0, _THUMBNAIL)))

    def draw(self, case: int, slide: int, box: Box, size: tuple[int, int]) -> Image.Image:
        """Draw a rectangle of a slide, from its store where the file is damaged."""
        source = self.slide(case, slide).source
        mosaic = None if source.mosaic is None else source.mosaic.draw
        return self._draw(case, slide, [lambda: source.picture.draw(box, size), mosaic and (lambda: mosaic(box, size))])

    def draw_whole(self, case: int, slide: int, max_side: int) -> Image.Image:
        """Draw a whole slide, at most ``max_side`` pixels along its longer side."""
        source = self.slide(case, slide).source
        if max_side <= _THUMBNAIL and source.store is not None and (small := source.store.thumbnail()) is not None:
            picture = Image.fromarray(small)
            picture.thumbnail((max_side, max_side))
            return picture
        mosaic = None if source.mosaic is None else source.mosaic.draw_whole
        return self._draw(
            case, slide, [lambda: source.picture.draw_whole(max_side), mosaic and (lambda: mosaic(max_side))]
        )

    def patch(self, case: int, slide: int, run: int, scale: int, patch: int) -> bytes:
        """Return a patch as JPEG: the bytes of the store, or cut out of the slide where it has none."""
        source, maps = self.slide(case, slide)
        slide_map = maps[run] if 0 <= run < len(maps) else None
        here = np.flatnonzero(slide_map.scale == scale) if slide_map else np.empty(0, np.int64)
        if slide_map is None or not 0 <= patch < len(here):
            raise NotFoundError(f"slide {slide} of case {case} has no patch {run}_{scale}_{patch}")
        corner, footprint = slide_map.coords[here[patch]], slide_map.footprints[scale]
        for store in _stores(source.store, slide_map):
            with suppress(StoreError):  # a damaged patch is cut out of the slide too
                stored = _number_in_store(store, slide_map, scale, corner)
                if stored is not None:
                    return store.read_encoded([stored], scale)[0]
        x, y = corner.tolist()
        side = max(1, round(footprint * slide_map.mpp / slide_map.scales[scale]))
        return as_jpeg(self.draw(case, slide, Box(x, y, x + footprint, y + footprint), (side, side)))

    def close(self) -> None:
        """Close the slides."""
        self._open_slides.close()

    def _draw(self, case: int, slide: int, ways: list[Callable[[], Image.Image] | None]) -> Image.Image:
        """Draw from the file or, if it is damaged there, from the store, and remember that."""
        first, second = ways
        assert first is not None
        try:
            with self._drawing:
                return first()
        except InputError as error:
            if second is None:
                raise
            if (case, slide) not in self._damaged:
                logger.warning("%s; damaged parts are drawn from the patch store", error)
            self._damaged[case, slide] = f"{error}; damaged parts are a mosaic of its patches."
            with self._drawing:
                return second()

    def _load_case(self, number: int) -> ViewedCase:
        name = self.names[number]
        read = [run.read_map(name) for run in self.runs]
        maps = [found for found, _ in read]
        notes = [f"{problem}." for _, problem in read if problem]
        slides = []
        for slide in _slide_names(name, maps, self.runs):
            own = tuple(_map_of(slide, one) for one in maps)
            first = next((place for place, one in enumerate(own) if one), 0)
            notes += [
                f"{run.folder} has another slide under the name {slide}, so its map is not shown."
                for run, one in zip(self.runs, own, strict=True)
                if not _same_slide(one, own[first])
            ]
            own = tuple(one if _same_slide(one, own[first]) else None for one in own)
            source = self._sources[first].find(slide, own[first])
            if source is None:
                notes.append(f"Neither the file nor the patch store of slide {slide} is found.")
            else:
                slides.append(ViewedSlide(source, own))
        return ViewedCase(name, tuple(slides), tuple(one.score if one else None for one in maps), tuple(notes))


def as_jpeg(picture: Image.Image, quality: int = _QUALITY) -> bytes:
    """Return a picture as JPEG."""
    picture.save(file := BytesIO(), "JPEG", quality=quality)
    return file.getvalue()


def _slide_names(case: str, maps: Iterable[CaseMap | None], runs: Iterable[RunCases]) -> list[str]:
    """Return the slides of a case: those of its maps, else those of the label table, else one with its name."""
    mapped = [one.slide for found in maps if found for one in found.slides]
    listed = [slide for run in runs for slide in run.slides.get(case, ())] if not mapped else []
    return list(dict.fromkeys(mapped or listed or [case]))


def _map_of(slide: str, case_map: CaseMap | None) -> SlideMap | None:
    slides = case_map.slides if case_map else ()
    return next((one for one in slides if one.slide == slide), None)


def _same_slide(one: SlideMap | None, other: SlideMap | None) -> bool:
    """Return whether two maps are of the same slide, as far as they know; an absent one fits to any."""
    if one is None or other is None:
        return True
    known = None not in (one.fingerprint, other.fingerprint)
    return one.size == other.size and (not known or one.fingerprint == other.fingerprint)


def _stores(store: PatchStore | None, slide_map: SlideMap) -> Iterable[PatchStore]:
    """Yield the stores that may hold the patches of a map: a second run may have another cache."""
    if store is not None:
        yield store
    try:
        other = PatchStore(slide_map.store)
    except InputError:
        return
    same = slide_map.fingerprint in (None, other.attributes.get("fingerprint"))
    if same and (store is None or other.path != store.path):
        yield other


def _number_in_store(store: PatchStore, slide_map: SlideMap, scale: int, corner: np.ndarray) -> int | None:
    """Return the number of the patch of a scale with this corner; None if the store was made otherwise."""
    footprints = store.attributes.get("footprints") or []
    if scale >= len(store.scales) or scale >= len(footprints) or footprints[scale] != slide_map.footprints[scale]:
        return None
    found = np.flatnonzero((store.coords(scale) == corner).all(axis=1))
    return int(found[0]) if len(found) else None
