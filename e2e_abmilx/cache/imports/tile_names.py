"""Two numbers in the names of a slide's images: level-0 pixels, or columns and rows of tiles.

Extractors name a patch after its level-0 pixel, DeepZoom tilers (DSMIL's, libvips) a tile after its column and row. The
names look alike; what tells them apart is that tiles follow each other by one, and patches do not.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from e2e_abmilx.errors import SourceError

#: What the two numbers are: level-0 pixels of the top left corner, or column and row.
Names = Literal["pixels", "tiles"]

_MOST_TILES = 10_000  # along a slide: level-0 coordinates go further, columns and rows do not


class NamedImages(NamedTuple):
    """The numbers in the names of a slide's images, shape ``(N, 2)``, and pixels along the side of most of them."""

    numbers: NDArray[np.int64]
    side: int


def numbers_in_names(slide: str, files: Sequence[Path]) -> NDArray[np.int64] | None:
    """The two numbers that each name ends in, alone or after the slide's name, shape ``(N, 2)``; None unless all do."""
    name = re.compile(rf"(?:{re.escape(slide)}_)?(\d{{1,9}})_(\d{{1,9}})")
    found = [match for file in files if (match := name.fullmatch(file.stem))]
    if not files or len(found) < len(files):
        return None
    return np.array([[int(match[1]), int(match[2])] for match in found])


def tell_names(folder: Path, slides: Mapping[str, NamedImages]) -> Names:
    """What the numbers in the names of the images of all slides of a folder are.

    Args:
        folder: The folder, for messages.
        slides: Numbers of each slide whose images have any.

    Raises:
        SourceError: They may be either, or are not the same in all slides.
    """
    told = {slide: _tell(images) for slide, images in slides.items()}
    readings = {reading for reading in told.values() if reading in ("pixels", "tiles")}
    unclear = [slide for slide, reading in told.items() if reading == "unclear"]
    if len(readings) < 2 and not unclear:
        return "tiles" if "tiles" in readings else "pixels"
    if readings == {"pixels"} and max(int(images.numbers.max()) for images in slides.values()) >= _MOST_TILES:
        return "pixels"  # of the same extractor as those that are beyond doubt
    if readings == {"tiles"}:
        return "tiles"
    doubtful = unclear[0] if unclear else next(slide for slide, reading in told.items() if reading == "tiles")
    x, y = slides[doubtful].numbers.max(axis=0)
    raise SourceError(
        f"the images in {folder / doubtful} are named after two numbers, up to {x} and {y}, which may be the level-0"
        " pixels of their corners, or columns and rows of tiles as DeepZoom counts them; say which: names=pixels or"
        " names=tiles (--names)"
    )


def _tell(images: NamedImages) -> Literal["pixels", "tiles", "either", "unclear"]:
    """What the numbers of one slide are."""
    numbers = np.unique(images.numbers, axis=0)
    if not numbers.any():
        return "either"  # one at the corner
    if len(numbers) == 1:
        return "pixels" if numbers.max() >= _MOST_TILES else "unclear"
    gaps = KDTree(numbers).query(numbers, k=2, p=np.inf)[0][:, 1]  # to the nearest other one, in x or y
    if gaps.min() >= images.side / 2:
        return "pixels"  # as patches lie that overlap by half at most
    if np.mean(gaps <= 1) >= 0.5 and numbers.max() < _MOST_TILES:
        return "tiles"
    return "pixels" if numbers.max() >= _MOST_TILES and np.mean(gaps <= 1) < 0.5 else "unclear"


def at_an_edge(numbers: NDArray[np.int64], sizes: Sequence[tuple[int, int]], side: int) -> NDArray[np.bool_]:
    """Which images are narrower or lower than the others because their slide ends there, shape ``(N,)``.

    Args:
        numbers: Of the images, shape ``(N, 2)``.
        sizes: Width and height of each.
        side: Width and height of the others.
    """
    pixels = np.array(sizes)
    outermost = (numbers == numbers.max(axis=0)) | (numbers == numbers.min(axis=0))
    edges: NDArray[np.bool_] = ((pixels == side) | ((pixels < side) & outermost)).all(axis=1)
    return edges & (pixels < side).any(axis=1)
