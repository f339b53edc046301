"""Pictures of rectangles of a slide: from its file, from its patch store, or plain.

Rectangles are in level-0 pixels; pictures are RGB.
"""

import math
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore
from e2e_abmilx.viewer.levels import Box, fitted
from e2e_abmilx.viewer.open_slides import OpenSlides

_MOST_PIXELS = 2304**2  # of a level that are read for one tile; beyond, a small picture of the slide is used
_MOST_PATCHES = 256  # that are decoded for one tile; beyond, the thumbnail is used
_SMALL_SIDE = 2048  # pixels of a small picture of the slide where there is no thumbnail
_GREY = (236, 236, 236)


class Picture(Protocol):
    """A slide of which any rectangle can be drawn."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, level-0 pixels."""
        ...

    def draw(self, box: Box, size: tuple[int, int]) -> Image.Image:
        """Draw a rectangle of the slide at this width and height."""
        ...

    def draw_whole(self, max_side: int) -> Image.Image:
        """Draw the whole slide, at most ``max_side`` pixels along its longer side."""
        ...


class SlidePicture:
    """The slide as its file holds it.

    A rectangle is read from the coarsest level of the file that is fine enough. Where that would take more than a few
    megapixels, as in a slide without coarse levels, it is cut out of the store's thumbnail, or, without a store, out of a
    small picture of the slide, which is drawn once.

    Args:
        path: The file.
        size: Width and height, level-0 pixels.
        slides: Opens the file.
        store: The slide's patch store, if there is one.
    """

    def __init__(self, path: Path, size: tuple[int, int], slides: OpenSlides, store: PatchStore | None) -> None:
        self.path, self.size = path, size
        self._slides, self._store = slides, store
        self._small: NDArray[np.uint8] | None = None
        self._lock = Lock()

    def draw(self, box: Box, size: tuple[int, int]) -> Image.Image:
        """Draw a rectangle; raise a SlideError where the file is damaged."""
        with self._slides.borrow(self.path) as slide:
            level = slide.coarsest_level((box.right - box.left) / size[0])
            width, height = slide.level_dimensions[level]
            inside = _scaled(box, width / self.size[0], height / self.size[1])
            if (inside.right - inside.left) * (inside.bottom - inside.top) <= _MOST_PIXELS:
                return _read(slide, level, inside, size)
            return _cut(self._small_picture(slide), box, self.size, size)

    def draw_whole(self, max_side: int) -> Image.Image:
        """Draw the whole slide; raise a SlideError where the file is damaged."""
        with self._slides.borrow(self.path) as slide:
            return Image.fromarray(slide.thumbnail(max_side))

    def _small_picture(self, slide: Slide) -> NDArray[np.uint8]:
        thumbnail = None if self._store is None else _thumbnail(self._store)
        if thumbnail is not None:
            return thumbnail
        with self._lock:
            if self._small is None:
                self._small = slide.thumbnail(_SMALL_SIDE)
            return self._small


class Mosaic:
    """The slide as its patch store holds it: the finest patches on the thumbnail.

    Where a rectangle holds very many patches, the thumbnail alone is drawn.

    Args:
        store: The store, which knows the slide's size.
    """

    def __init__(self, store: PatchStore) -> None:
        self.store = store
        width, height = store.attributes["slide_size"]
        self.size = (int(width), int(height))
        footprints = store.attributes.get("footprints") or [math.nan]
        self._footprint = float(footprints[0])

    def draw(self, box: Box, size: tuple[int, int], *, most_patches: int = _MOST_PATCHES) -> Image.Image:
        """Draw a rectangle; patches that cannot be decoded leave the thumbnail visible."""
        thumbnail = _thumbnail(self.store)
        plain = Image.new("RGB", size, _GREY) if thumbnail is None else _cut(thumbnail, box, self.size, size)
        patches = self._inside(box)
        detail = thumbnail is None or (box.right - box.left) / size[0] < self.size[0] / thumbnail.shape[1]
        if not detail or len(patches) > most_patches:
            return plain
        corners = _coords(self.store)[patches]
        for patch, corner in zip(patches.tolist(), corners.tolist(), strict=True):
            left, right = _pixels(corner[0], self._footprint, box.left, box.right, size[0])
            top, bottom = _pixels(corner[1], self._footprint, box.top, box.bottom, size[1])
            pixels = Image.fromarray(self.store.read([patch])[0])
            plain.paste(pixels.resize((right - left, bottom - top), Image.Resampling.BOX), (left, top))
        return plain

    def draw_whole(self, max_side: int) -> Image.Image:
        """Draw the whole slide."""
        return self.draw(Box(0, 0, *self.size), fitted(self.size, max_side), most_patches=10_000)

    def _inside(self, box: Box) -> NDArray[np.int64]:
        """Return the finest patches that overlap a rectangle; none where their places are unknown."""
        corners = _coords(self.store)
        known = (corners >= 0).all(axis=1)
        after = (corners[:, 0] < box.right) & (corners[:, 1] < box.bottom)
        before = (corners + self._footprint > (box.left, box.top)).all(axis=1)
        return np.flatnonzero(known & after & before)


class Plain(NamedTuple):
    """A grey plane in place of a slide of which nothing is left, so that an overlay still has its place."""

    size: tuple[int, int]

    def draw(self, box: Box, size: tuple[int, int]) -> Image.Image:
        """Draw a rectangle."""
        return Image.new("RGB", size, _GREY)

    def draw_whole(self, max_side: int) -> Image.Image:
        """Draw the whole plane."""
        return Image.new("RGB", fitted(self.size, max_side), _GREY)


def _read(slide: Slide, level: int, box: Box, size: tuple[int, int]) -> Image.Image:
    """Read a rectangle of a level, in pixels of the level, and resize it.

    Pixels around it are read too where they have a share in its outermost pixels, so that tiles fit together seamlessly.
    """
    scale = max((box.right - box.left) / size[0], (box.bottom - box.top) / size[1])
    margin = 0 if all(float(edge).is_integer() for edge in box) and _is_whole(box, size) else math.ceil(scale) + 1
    width, height = slide.level_dimensions[level]
    left, top = max(0, math.floor(box.left) - margin), max(0, math.floor(box.top) - margin)
    right, bottom = min(width, math.ceil(box.right) + margin), min(height, math.ceil(box.bottom) + margin)
    pixels = Image.fromarray(slide.read_level(level, left, top, right - left, bottom - top))
    if not margin:
        return pixels.reduce(round(scale)) if scale > 1 else pixels
    inside = (box.left - left, box.top - top, min(box.right - left, right - left), min(box.bottom - top, bottom - top))
    return pixels.resize(size, Image.Resampling.HAMMING, box=inside)


def _is_whole(box: Box, size: tuple[int, int]) -> bool:
    """Return whether each pixel of a picture is the mean of the same whole number of pixels of the rectangle."""
    across, down = (box.right - box.left) / size[0], (box.bottom - box.top) / size[1]
    return across == down and float(across).is_integer()


def _cut(picture: NDArray[np.uint8], box: Box, whole: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Cut a rectangle out of a small picture of the whole slide, and resize it."""
    height, width = picture.shape[:2]
    inside = _scaled(box, width / whole[0], height / whole[1])
    inside = Box(inside.left, inside.top, min(inside.right, width), min(inside.bottom, height))
    return Image.fromarray(picture).resize(size, Image.Resampling.HAMMING, box=inside)


def _scaled(box: Box, across: float, down: float) -> Box:
    return Box(box.left * across, box.top * down, box.right * across, box.bottom * down)


def _pixels(corner: float, footprint: float, start: float, end: float, length: int) -> tuple[int, int]:
    """Return the first pixel that a patch covers along one axis of a picture, and the one after the last."""
    scale = length / (end - start)
    first = round((corner - start) * scale)
    return first, max(first + 1, round((corner + footprint - start) * scale))


@lru_cache(maxsize=8)
def _thumbnail(store: PatchStore) -> NDArray[np.uint8] | None:
    return store.thumbnail()


@lru_cache(maxsize=8)
def _coords(store: PatchStore) -> NDArray[np.int64]:
    return store.coords()
