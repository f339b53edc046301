"""Pictures of rectangles of a slide: from its file, from its patch store, or plain.

Rectangles are in level-0 pixels; pictures are RGB.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.format import StoreError
from e2e_abmilx.viewer.levels import Box, fitted
from e2e_abmilx.viewer.open_slides import OpenSlides

_MOST_PIXELS = 2304**2  # of a level that are read for one tile; beyond, a small picture of the slide is used
_MOST_PATCHES = 100  # that are decoded for one tile; beyond, the thumbnail is used
_SMALL_SIDE = 2048  # pixels of a small picture of the slide where there is no thumbnail
_STRIP = 64  # rows of a picture that are read at a time
_GREY = (236, 236, 236)

Read = Callable[[int, int, int, int], NDArray[np.uint8]]  # x, y, width, height → pixels


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
        corners = zip(*(axis[patches].tolist() for axis in _corners(self.store)), strict=True)
        for patch, (x, y) in zip(patches.tolist(), corners, strict=True):
            left, right = _pixels(x, self._footprint, box.left, box.right, size[0])
            top, bottom = _pixels(y, self._footprint, box.top, box.bottom, size[1])
            with suppress(StoreError):
                pixels = Image.fromarray(self.store.read([patch])[0])
                plain.paste(pixels.resize((right - left, bottom - top), Image.Resampling.BOX), (left, top))
        return plain

    def draw_whole(self, max_side: int) -> Image.Image:
        """Draw the whole slide."""
        return self.draw(Box(0, 0, *self.size), fitted(self.size, max_side), most_patches=10_000)

    def _inside(self, box: Box) -> NDArray[np.int64]:
        """Return the finest patches that overlap a rectangle; none where their places are unknown."""
        x, y = _corners(self.store)
        across = (x >= 0) & (x < box.right) & (x > box.left - self._footprint)
        return np.flatnonzero(across & (y >= 0) & (y < box.bottom) & (y > box.top - self._footprint))


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
    """Read a rectangle of a level, in pixels of the level, and resize it."""
    if not (all(float(edge).is_integer() for edge in box) and _is_whole(box, size)):
        return _resize(partial(slide.read_level, level), slide.level_dimensions[level], box, size)
    left, top, right, bottom = map(int, box)
    shrink = (right - left) // size[0]
    step = _STRIP * shrink  # in strips, so that several large reads at a time take little memory
    strips = [
        Image.fromarray(slide.read_level(level, left, y, right - left, min(step, bottom - y))).reduce(shrink)
        for y in range(top, bottom, step)
    ]
    return Image.fromarray(np.concatenate([np.asarray(strip) for strip in strips]))


def _is_whole(box: Box, size: tuple[int, int]) -> bool:
    """Return whether each pixel of a picture is the mean of the same whole number of pixels of the rectangle."""
    across, down = (box.right - box.left) / size[0], (box.bottom - box.top) / size[1]
    return across == down and float(across).is_integer()


def _cut(picture: NDArray[np.uint8], box: Box, whole: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Cut a rectangle out of a small picture of the whole slide, and resize it."""
    height, width = picture.shape[:2]
    return _resize(
        lambda x, y, w, h: picture[y : y + h, x : x + w],
        (width, height),
        _scaled(box, width / whole[0], height / whole[1]),
        size,
    )


def _resize(read: Read, limits: tuple[int, int], box: Box, size: tuple[int, int]) -> Image.Image:
    """Read a rectangle of pixels and resize it.

    Pixels around it are read too where they have a share in its outermost pixels, so that tiles fit together seamlessly.
    """
    margin = math.ceil(max((box.right - box.left) / size[0], (box.bottom - box.top) / size[1])) + 1
    left, top = max(0, math.floor(box.left) - margin), max(0, math.floor(box.top) - margin)
    right, bottom = min(limits[0], math.ceil(box.right) + margin), min(limits[1], math.ceil(box.bottom) + margin)
    pixels = Image.fromarray(np.ascontiguousarray(read(left, top, right - left, bottom - top)))
    inside = (box.left - left, box.top - top, min(box.right - left, right - left), min(box.bottom - top, bottom - top))
    return pixels.resize(size, Image.Resampling.HAMMING, box=inside)


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
def _corners(store: PatchStore) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    x, y = store.coords().T
    return np.ascontiguousarray(x), np.ascontiguousarray(y)
