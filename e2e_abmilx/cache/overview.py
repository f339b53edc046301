"""Pictures of a cache: each slide's thumbnail with its tissue outline and its patches, and a sheet of all slides."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from e2e_abmilx.cache.jobs import CLAIMS, OVERVIEWS
from e2e_abmilx.io.atomic import atomic_write, remove_partials
from e2e_abmilx.io.locks import hold, is_held
from e2e_abmilx.store import PatchStore

_SIDE = 1024  # pixels along the longer side of an overview
_CELL = 256  # pixels along the side of a slide on the sheet
# The colours of Okabe and Ito, which colour-blind people can tell apart: green; blue, vermilion and purple.
_TISSUE = (0, 158, 115)
_SCALES = ((0, 114, 178), (213, 94, 0), (204, 121, 167))


def draw_overview(store: PatchStore) -> Image.Image:
    """Draw a slide's thumbnail with its tissue outline and its patches, one colour per scale.

    Raises:
        ValueError: The store has no thumbnail or no tissue mask.
    """
    thumbnail, tissue = store.thumbnail(), store.tissue()
    if thumbnail is None or tissue is None:
        raise ValueError(f"{store.path} has no thumbnail or no tissue mask; cache the slide itself to draw it")
    factor = _SIDE / max(thumbnail.shape[:2])
    size = (max(1, round(thumbnail.shape[1] * factor)), max(1, round(thumbnail.shape[0] * factor)))
    pixels = np.asarray(Image.fromarray(thumbnail).resize(size)).copy()
    mask = np.asarray(Image.fromarray(tissue).resize(size, Image.Resampling.NEAREST))
    pixels[mask & ~ndimage.binary_erosion(mask, iterations=2)] = _TISSUE
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    shrink = image.width / store.attributes["slide_size"][0]
    for scale, footprint in enumerate(store.attributes["footprints"]):
        inset = 2 * scale  # so that the lines of coarse patches do not cover those of fine ones
        for x, y in store.coords(scale) * shrink:
            end = footprint * shrink - inset
            pen.rectangle((x + inset, y + inset, x + end, y + end), outline=_SCALES[scale % len(_SCALES)])
    return image


def write_sheet(out: Path) -> None:
    """Draw the overviews of all slides of a cache that no process is working on into its ``overview.png``.

    Of several processes that finish together, the last one draws all slides.
    """
    with hold(out / ".overview.lock", wait=True):
        remove_partials(out / "overview.png")
        pictures = [path for path in sorted((out / OVERVIEWS).glob("*.png")) if _is_done(path, out)]
        if pictures:
            with atomic_write(out / "overview.png") as partial:
                draw_sheet(pictures).save(partial, format="png")


def _is_done(picture: Path, out: Path) -> bool:
    """Return whether a slide's overview is complete; one that a killed process left incomplete is drawn again."""
    store = out / f"{picture.stem}.zarr"
    # The order matters: a process claims a slide before it makes the store, and releases it after the overview.
    if not store.exists() or is_held(out / CLAIMS / f"{picture.stem}.lock"):
        return False
    try:
        with Image.open(picture) as image:
            image.load()
    except (OSError, SyntaxError):  # Pillow raises either for a truncated PNG
        draw_overview(PatchStore(store)).save(picture)
    return True


def draw_sheet(pictures: Sequence[Path]) -> Image.Image:
    """Draw overviews, from files named after their slides, on one sheet, each under the slide's name."""
    columns = max(1, math.ceil(math.sqrt(len(pictures))))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * _CELL, rows * (_CELL + 14)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, path in enumerate(pictures):
        left, top = index % columns * _CELL, index // columns * (_CELL + 14)
        with Image.open(path) as picture:
            picture.thumbnail((_CELL - 4, _CELL - 4))
            sheet.paste(picture, (left + 2, top + 14))
        pen.text((left + 2, top + 1), path.stem[:40], fill="black")
    return sheet
