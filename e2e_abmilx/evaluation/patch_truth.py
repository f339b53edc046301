"""The truth of patches: how much of each patch a mask of its slide covers."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore


def check_mask(path: Path, slide_size: tuple[int, int]) -> None:
    """Refuse a mask that cannot be read, has several channels, or does not cover the whole slide.

    Args:
        path: An image.
        slide_size: Width and height of the slide, level-0 pixels.

    Raises:
        InputError: It is so; the sides may differ from those of the slide's aspect ratio by one pixel of rounding.
    """
    try:
        with Image.open(path) as picture:
            (width, height), bands = picture.size, picture.getbands()
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a mask ({error}); save it as a greyscale PNG") from error
    if len(bands) != 1:
        raise InputError(
            f"{path} has the channels {', '.join(bands)}; a mask has one, not 0 on the marked tissue: save it as greyscale"
        )
    across, down = slide_size
    if abs(width * down - height * across) > max(across, down):
        raise InputError(
            f"{path} has {width} × {height} pixels, and the slide {across} × {down}, of another aspect ratio; give a mask"
            " that covers the whole slide, at any downsampling"
        )


def covered_fractions(
    path: Path, slide_size: tuple[int, int], corners: ArrayLike, sides: ArrayLike
) -> NDArray[np.float64]:
    """Return the fraction of each patch that is marked in a mask of its slide, shape ``(N,)``.

    A patch has the whole pixels of the mask that begin at the pixel with its corner, and as many along its side as fit
    best, at least one. Marked pixels are those that are not 0.

    Args:
        path: A greyscale image that covers the whole slide, at any downsampling.
        slide_size: Width and height of the slide, level-0 pixels.
        corners: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.
        sides: Side of the square that each patch covers, level-0 pixels, shape ``(N,)`` or a number.

    Raises:
        InputError: As :func:`check_mask`, or a patch lies outside the slide.
    """
    check_mask(path, slide_size)
    with Image.open(path) as picture:
        marked = np.asarray(picture) != 0
    corner = np.asarray(corners, np.int64).reshape(-1, 2)
    if (corner < 0).any() or (corner >= slide_size).any():
        raise InputError(
            f"patches lie outside the slide of {slide_size[0]} × {slide_size[1]} pixels that {path} covers"
        )
    size = np.array(marked.shape[::-1])
    first = corner * size // slide_size
    scale = size / slide_size
    extent = np.maximum(1, np.round(np.broadcast_to(sides, len(corner))[:, None] * scale)).astype(np.int64)
    boxes = zip(first.tolist(), (first + extent).tolist(), strict=True)
    return np.array([marked[top:bottom, left:right].mean() for (left, top), (right, bottom) in boxes])


def covered_in_store(store: PatchStore, path: Path, corners: ArrayLike, scale: ArrayLike) -> NDArray[np.float64]:
    """Return the fraction of patches of a store that is marked in a mask of its slide, shape ``(N,)``.

    Args:
        store: The patches of the slide.
        path: As in :func:`covered_fractions`.
        corners: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.
        scale: Number of the store's scale that each patch is from, shape ``(N,)`` or one number.

    Raises:
        InputError: As :func:`covered_fractions` and :func:`slide_size_of`.
    """
    slide_size = slide_size_of(store)
    return covered_fractions(path, slide_size, corners, np.asarray(store.attributes["footprints"])[np.asarray(scale)])


def slide_size_of(store: PatchStore) -> tuple[int, int]:
    """Return width and height of the slide of a store, level-0 pixels.

    Raises:
        InputError: The store does not record them, or not how large its patches are on the slide.
    """
    for name in ("slide_size", "footprints"):
        if store.attributes.get(name) is None:
            raise InputError(
                f"{store.path} has no {name}, so a mask cannot be laid over its patches; make the store from the slide"
                " itself, with `e2e-abmilx cache`"
            )
    width, height = store.attributes["slide_size"]
    return int(width), int(height)
