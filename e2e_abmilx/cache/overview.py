"""See a cache: each slide's thumbnail with the outline of its tissue and its patches, and a sheet of all."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from e2e_abmilx.store import PatchStore

_SIDE = 1024  # pixels along the longer side of an overview
_CELL = 256  # pixels along the side of a slide on the sheet
_TISSUE = (0, 158, 115)  # green, blue and vermilion that colour-blind people can tell apart
_SCALES = ((0, 114, 178), (213, 94, 0), (204, 121, 167))


def draw_overview(store: PatchStore) -> Image.Image:
    """Draw a slide's thumbnail with tissue outline and patch grid, one colour a scale.

    Args:
        store: A store that has a thumbnail, a tissue mask, and coordinates.
    """
    thumbnail, tissue = store.thumbnail(), store.tissue()
    if thumbnail is None or tissue is None:
        raise ValueError(
            f"{store.path} holds no thumbnail or no tissue mask; cache the slide itself to see it"
        )
    factor = _SIDE / max(thumbnail.shape[:2])
    size = (max(1, round(thumbnail.shape[1] * factor)), max(1, round(thumbnail.shape[0] * factor)))
    pixels = np.asarray(Image.fromarray(thumbnail).resize(size)).copy()
    mask = np.asarray(Image.fromarray(tissue).resize(size, Image.Resampling.NEAREST))
    pixels[mask & ~ndimage.binary_erosion(mask, iterations=2)] = _TISSUE
    image = Image.fromarray(pixels)
    _draw_grid(image, store)
    return image


def _draw_grid(image: Image.Image, store: PatchStore) -> None:
    pen = ImageDraw.Draw(image)
    shrink = image.width / store.attributes["slide_size"][0]
    for scale, footprint in enumerate(store.attributes["footprints"]):
        inset = 2 * scale  # so that the lines of coarse patches lie beside those of fine ones
        for x, y in store.coords(scale) * shrink:
            end = footprint * shrink - inset
            pen.rectangle((x + inset, y + inset, x + end, y + end), outline=_SCALES[scale % len(_SCALES)])


def draw_sheet(pictures: Sequence[tuple[str, Path]]) -> Image.Image:
    """Draw the overviews of many slides on one sheet.

    Args:
        pictures: Name of each slide and the file of its overview.
    """
    columns = max(1, math.ceil(math.sqrt(len(pictures))))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * _CELL, rows * (_CELL + 14)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, path) in enumerate(pictures):
        left, top = index % columns * _CELL, index // columns * (_CELL + 14)
        with Image.open(path) as picture:
            picture.thumbnail((_CELL - 4, _CELL - 4))
            sheet.paste(picture, (left + 2, top + 14))
        pen.text((left + 2, top + 1), name[:40], fill="black")
    return sheet
