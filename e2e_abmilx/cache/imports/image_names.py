"""The two numbers in the names of a slide's images: level-0 pixels, or columns and rows of tiles.

Patch extractors name a patch after its level-0 coordinates, DeepZoom tilers (DSMIL's, libvips) name a tile after its
column and row. The names look alike, but neighbouring tiles are numbered one apart, and patches are not.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from e2e_abmilx.errors import SourceError

#: Meaning of the two numbers: level-0 pixels of the top left corner, or column and row.
Names = Literal["pixels", "tiles"]

_MAX_TILES = 10_000  # along a slide: larger numbers can only be level-0 pixels


class NamedImages(NamedTuple):
    """The numbers in the names of a slide's images, shape ``(N, 2)``, and the side of most images, pixels."""

    numbers: NDArray[np.int64]
    side: int


def numbers_in_names(slide: str, files: Sequence[Path]) -> NDArray[np.int64] | None:
    """Return the numbers in all files' names, after the slide's name or alone, ``(N, 2)``; None if a name has none."""
    name = re.compile(rf"(?:{re.escape(slide)}_)?(\d{{1,9}})_(\d{{1,9}})")
    found = [match for file in files if (match := name.fullmatch(file.stem))]
    if not files or len(found) < len(files):
        return None
    return np.array([[int(match[1]), int(match[2])] for match in found])


def choose_names(folder: Path, slides: Mapping[str, NamedImages]) -> Names:
    """Return the meaning of the numbers in the names of a folder's images, the same for all slides that have any.

    Raises:
        SourceError: The numbers may be either, or differ in meaning between slides.
    """
    found = {slide: _choose_names(images) for slide, images in slides.items()}
    meanings = {meaning for meaning in found.values() if meaning in ("pixels", "tiles")}
    unclear = [slide for slide, meaning in found.items() if meaning == "unclear"]
    if len(meanings) < 2 and not unclear:
        return "tiles" if "tiles" in meanings else "pixels"
    if meanings == {"pixels"} and max(int(images.numbers.max()) for images in slides.values()) >= _MAX_TILES:
        return "pixels"  # the same extractor has made those that are unclear
    if meanings == {"tiles"}:
        return "tiles"
    doubtful = unclear[0] if unclear else next(slide for slide, meaning in found.items() if meaning == "tiles")
    x, y = slides[doubtful].numbers.max(axis=0)
    raise SourceError(
        f"the images in {folder / doubtful} are named after two numbers, up to {x} and {y}, which may be the level-0"
        " pixels of their corners, or columns and rows of tiles as in DeepZoom; state which: names=pixels or"
        " names=tiles (--names)"
    )


def _choose_names(images: NamedImages) -> Literal["pixels", "tiles", "either", "unclear"]:
    """Return the meaning of the numbers of one slide."""
    numbers = np.unique(images.numbers, axis=0)
    if not numbers.any():
        return "either"  # a single image at (0, 0)
    if len(numbers) == 1:
        return "pixels" if numbers.max() >= _MAX_TILES else "unclear"
    gaps = KDTree(numbers).query(numbers, k=2, p=np.inf)[0][:, 1]  # to the nearest other image, in x or y
    if gaps.min() >= images.side / 2:
        return "pixels"  # patches that overlap by half at most
    if np.mean(gaps <= 1) >= 0.5 and numbers.max() < _MAX_TILES:
        return "tiles"
    return "pixels" if numbers.max() >= _MAX_TILES and np.mean(gaps <= 1) < 0.5 else "unclear"


def edge_tiles(numbers: NDArray[np.int64], sizes: Sequence[tuple[int, int]], side: int) -> NDArray[np.bool_]:
    """Return which images are narrower or lower than ``side``, that of most, because their slide ends there: ``(N,)``.

    ``numbers`` are those in the names of the images, shape ``(N, 2)``; ``sizes`` are width and height of each.
    """
    pixels = np.array(sizes)
    outermost = (numbers == numbers.max(axis=0)) | (numbers == numbers.min(axis=0))
    edges: NDArray[np.bool_] = ((pixels == side) | ((pixels < side) & outermost)).all(axis=1)
    return edges & (pixels < side).any(axis=1)
