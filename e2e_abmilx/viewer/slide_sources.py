"""Where the pixels of a slide come from: its file if that is found and the one that was cached, else its patch store."""

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cache import is_slide_of, slide_path
from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps.case_map import SlideMap
from e2e_abmilx.slides.listing import list_slides
from e2e_abmilx.slides.slide_files import find_slides
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.format import ReachError
from e2e_abmilx.store.locations import as_location, store_path
from e2e_abmilx.viewer.open_slides import OpenSlides
from e2e_abmilx.viewer.pictures import Mosaic, Picture, Plain, SlidePicture
from e2e_abmilx.viewer.run_cases import RunCases, find_again

logger = logging.getLogger(__name__)

_MOSAIC = "so this is a mosaic of its patches"


class SlideSource(NamedTuple):
    """A slide and what it is drawn from.

    Attributes:
        name: Name of the slide.
        picture: Draws it.
        mosaic: Draws it where the file turns out to be damaged; None without a store.
        store: Its patch store, if that is found.
        mpp: Level-0 µm/px; None where it is unknown.
        note: Why this is not the slide itself; None if it is.
    """

    name: str
    picture: Picture
    mosaic: Mosaic | None
    store: PatchStore | None
    mpp: float | None
    note: str | None


class SlideSources:
    """Finds the slides of a run.

    Args:
        run: The run, whose settings name the cache and the slides.
        folder: Where slides have been moved to; looked at first.
        slides: Opens slide files.
    """

    def __init__(self, run: RunCases, folder: Path | None, slides: OpenSlides) -> None:
        self._run, self._folder, self._slides = run, folder, slides

    def find(self, name: str, slide_map: SlideMap | None) -> SlideSource | None:
        """Return the best source of a slide; None if nothing of it is left, not even its size."""
        store = self._find_store(name, slide_map)
        mosaic = None if store is None or not store.attributes.get("slide_size") else Mosaic(store)
        size = slide_map.size if slide_map else mosaic.size if mosaic else None
        mpp = slide_map.mpp if slide_map else store.attributes.get("slide_mpp") if store else None
        marked = slide_map.fingerprint if slide_map else None
        if store is not None:
            marked = marked or store.attributes.get("fingerprint")
        picture, problem, stated = self._open(name, store, size, marked)
        if picture is not None:
            return SlideSource(name, picture, mosaic, store, mpp or stated, None)
        if mosaic is not None and (size is None or mosaic.size == tuple(size)):
            return SlideSource(name, mosaic, mosaic, store, mpp, f"{problem}, {_MOSAIC}.")
        if size is None:
            return None
        note = f"{problem}, and its patch store is not found either: only the overlay is shown."
        return SlideSource(name, Plain(size), None, None, mpp, note)

    def _open(
        self, name: str, store: PatchStore | None, size: tuple[int, int] | None, marked: str | None
    ) -> tuple[SlidePicture | None, str, float | None]:
        """Return the picture of the slide's file, or why there is none, and the µm/px that the file states."""
        path, problem = self._find_file(name, store, marked)
        if path is None:
            return None, problem, None
        try:
            with self._slides.borrow(path) as slide:
                found = (int(slide.size[0]), int(slide.size[1]))
                if size is not None and found != tuple(size):
                    shown = "{} × {} pixels instead of {} × {}".format(*found, *size)
                    return None, f"{path} is another slide ({shown})", None
                stated = slide.stated.x
                for level, (width, height) in enumerate(slide.level_dimensions):
                    slide.read_level(level, width // 2, height // 2, 1, 1)  # notices most damage
        except InputError as error:
            return None, str(error), None
        return SlidePicture(path, found, self._slides, store), "", stated

    def _find_file(self, name: str, store: PatchStore | None, marked: str | None) -> tuple[Path | None, str]:
        """Return the file of a slide, or why it is not used; without a fingerprint any file of the name may be it."""
        cached = _cached_path(store.path.parent, name) if store is not None and isinstance(store.path, Path) else None
        other: Path | None = None
        for path in self._candidates(name, cached):
            if marked is None or is_slide_of(marked, path):
                return path, ""
            other = other or path
        if other is not None:
            return None, f"{other} is not the file that was cached: its size or its content differs"
        looked = " and ".join(dict.fromkeys(str(path) for path in (self._folder, cached, self._named) if path))
        where = f"not at {looked}" if looked else "the run names none"
        return None, f"The file of slide {name} is not found ({where}; `--slides FOLDER` says where it is now)"

    def _candidates(self, name: str, cached: Path | None) -> Iterator[Path]:
        """Yield files of a slide; folders, which may be large, are listed only as far as needed."""
        yield from self._in_folder.get(name, ())
        if cached is not None and cached.exists():
            yield cached
        yield from self._in_settings.get(name, ())

    @cached_property
    def _named(self) -> Path | None:
        """The slides that the settings of the run name."""
        data = (self._run.settings.get("data") or {}).get("init_args") or {}
        named = data.get("slides") or (data.get("folder") and f"{data['folder']}/slides")
        return find_again(Path(named), self._run.folder) if isinstance(named, str) else None

    @cached_property
    def _in_folder(self) -> dict[str, list[Path]]:
        return _by_name(self._folder)

    @cached_property
    def _in_settings(self) -> dict[str, list[Path]]:
        return _by_name(self._named)

    def _find_store(self, name: str, slide_map: SlideMap | None) -> PatchStore | None:
        """Return the store that the map names, else that of the run's cache; None if there is none of this slide.

        A store that was made again from another slide of the same name is not that of the map.
        """
        paths = [as_location(slide_map.store)] if slide_map else []
        origin = self._run.origin
        if origin is not None and origin.cache is not None:
            named = store_path(as_location(origin.cache), name)
            paths.append(find_again(named, self._run.folder) if isinstance(named, Path) else named)
        for path in paths:
            try:
                store = PatchStore(path)
            except ReachError as error:
                logger.warning("%s", error)
                continue
            except InputError:
                continue
            if slide_map is None or slide_map.fingerprint in (None, store.attributes.get("fingerprint")):
                return store
        return None


def _cached_path(cache: Path, name: str) -> Path | None:
    try:
        return slide_path(cache, name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the manifest of %s cannot be read (%s: %s)", cache, type(error).__name__, error)
        return None


def _by_name(place: Path | None) -> dict[str, list[Path]]:
    """Return the slides in a folder, or that a table names, by name; none where they cannot be listed any more."""
    found: dict[str, list[Path]] = {}
    if place is None or not place.exists():
        return found
    try:
        for file in list_slides(place) if place.is_dir() else find_slides(place):
            if file.path.exists():
                found.setdefault(file.name, []).append(file.path)
    except InputError as error:
        logger.warning("%s; slides are not looked for there", error)
    return found
