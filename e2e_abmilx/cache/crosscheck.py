"""Two readers, one truth: stored patches decoded again from the slide, by the reader that did not make them."""

import math
import zlib
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.cache.patches import cut_again
from e2e_abmilx.errors import InputError
from e2e_abmilx.slides import ReadPlan, Slide
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.codec import JPEG_QUALITY, encode_patch

#: Patches a scale that are decoded again.
CHECK_PATCHES = 8

#: Largest mean difference of a patch, grey levels, between readers that read the same level.
TOLERANCE = 4.0

#: The same where the other reader lacks the level and averages a finer one, which pyramids do in their own ways, or
#: where patches were left out, so that the others may lie on other squares of pixels.
LOOSE_TOLERANCE = 12.0

_MOST_PIXELS = (
    16_000_000  # of a slide that are read for one scale: where levels lack, fewer patches are checked
)


class CheckError(InputError):
    """A number of patches that cannot be checked."""


class Check(NamedTuple):
    """What became of the comparison of a slide's readers.

    Attributes:
        read_by: The reader that the patches come from; empty where they come from no slide.
        checked_by: The reader that decoded some again; why there is none otherwise.
        checked: Patches that were compared.
        mean_difference: Mean difference of the patch that differs most, grey levels.
        largest_difference: Largest difference of any sample of any of them, grey levels.
        problem: Why the slide fails; empty where it does not.
    """

    read_by: str = ""
    checked_by: str = ""
    checked: int = 0
    mean_difference: float | None = None
    largest_difference: int | None = None
    problem: str = ""


def check_count(count: int) -> None:
    """Refuse a number of patches that is negative.

    Raises:
        CheckError: It is.
    """
    if count < 0:
        raise CheckError(f"check_patches is {count}; it is a number of patches a scale, 0 for none")


def compare_readers(store: PatchStore, path: Path, count: int, *, quality: int = JPEG_QUALITY) -> Check:
    """Decode some patches of a store again, by the other reader, from the slide itself.

    The other reader's pixels are cut and encoded as those of the store were, so that two readers that agree differ by
    nothing. Which patches are taken is random, and always the same for a slide of one name.

    Args:
        store: The patches, cut from level-0 places of the slide.
        path: The slide.
        count: Patches a scale; 0 compares none.
        quality: JPEG quality of the store.
    """
    with Slide(path) as slide:
        if count == 0:
            return Check(slide.reader, "nobody: check_patches is 0")
        other = slide.by_other_reader()
        if other is None:
            return Check(slide.reader, "nobody: no other reader reads this slide")
        with other:
            found = [
                _compare_scale(store, scale, slide, other, count, quality)
                for scale in range(len(store.scales))
            ]
    checked = sum(len(each.means) for each in found)
    if not checked:
        return Check(slide.reader, f"nobody: {other.reader} can read none of the patches")
    mean = max(float(each.means.max()) for each in found if len(each.means))
    largest = max(each.largest for each in found)
    problem = "; ".join(filter(None, (_problem(each, path, slide, other) for each in found)))
    return Check(slide.reader, other.reader, checked, round(mean, 3), largest, problem)


class _Differences(NamedTuple):
    """Mean difference of each patch of a scale, the largest of any sample, and what is tolerated."""

    scale: float
    means: NDArray[np.float64]
    largest: int
    tolerance: float
    places: NDArray[np.int64]


def _compare_scale(
    store: PatchStore, scale: int, slide: Slide, other: Slide, count: int, quality: int
) -> _Differences:
    footprint = float(store.attributes["footprints"][scale])
    plan = _plan(other, footprint, store.patch_size)
    is_same = other.level_dimensions[plan.level] == _level_size(slide, footprint, store.patch_size)
    side = max(1.0, plan.footprint / plan.downsample)
    count = max(1, min(count, int(_MOST_PIXELS / side**2)))
    coords = store.coords(scale)
    rng = np.random.default_rng([zlib.crc32(store.name.encode()), scale])
    indices = np.sort(rng.choice(len(coords), min(count, len(coords)), replace=False))
    means, places, largest = [], [], 0
    for index, again in cut_again(other, plan, coords, indices, store.patch_size):
        seen = imagecodecs.jpeg8_decode(encode_patch(again, quality, "444"))
        difference = np.abs(seen.astype(int) - store.read([index], scale)[0])
        means.append(float(difference.mean()))
        largest = max(largest, int(difference.max()))
        places.append(coords[index])
    is_whole = len(coords) == store.attributes["grid_patches"][scale]
    tolerance = TOLERANCE if is_same and is_whole else LOOSE_TOLERANCE
    return _Differences(store.scales[scale], np.array(means), largest, tolerance, np.array(places))


def _plan(slide: Slide, footprint: float, patch_size: int) -> ReadPlan:
    """The coarsest level of a slide that is fine enough for patches of this size."""
    level = slide.coarsest_level(footprint / patch_size)
    return ReadPlan(level, slide.level_downsamples[level], footprint, math.nan)


def _level_size(slide: Slide, footprint: float, patch_size: int) -> tuple[int, int]:
    return slide.level_dimensions[_plan(slide, footprint, patch_size).level]


def _problem(found: _Differences, path: Path, slide: Slide, other: Slide) -> str:
    """Why a scale fails; nothing where it does not."""
    if not len(found.means) or found.means.max() <= found.tolerance:
        return ""
    worst = int(found.means.argmax())
    x, y = found.places[worst].tolist()
    return (
        f"{path}: the two readers disagree: at {found.scale:g} µm/px the patch at x {x}, y {y} differs by"
        f" {found.means[worst]:.1f} grey levels in the mean and by {found.largest} at most between {slide.reader} and"
        f" {other.reader}, and {found.tolerance:g} in the mean are tolerated; one of them decodes it wrongly: export the"
        " slide anew, or report it"
    )
