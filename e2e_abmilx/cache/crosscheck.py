"""The cross-check: some stored patches are decoded again from the slide by a second reader, and compared."""

import zlib
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np

from e2e_abmilx.cache.patches import cut_again
from e2e_abmilx.errors import InputError
from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.codec import JPEG_QUALITY, encode_patch

#: Patches per scale that are decoded again.
CHECK_PATCHES = 8

#: Largest mean difference of a patch, grey levels, between readers that read the same level.
TOLERANCE = 4.0

#: The same if the second reader lacks the level and averages a finer one, for which pyramids use different filters, or
#: if patches were left out, so that other squares of pixels may have been averaged.
LOOSE_TOLERANCE = 12.0

# Pixels of a slide that are read for one scale; if levels are missing, fewer patches are checked.
_MAX_PIXELS = 16_000_000


class CheckError(InputError):
    """The number of patches to check is negative."""


class Check(NamedTuple):
    """The outcome of comparing the two readers of a slide: the fields of the same names in ``CachedSlide``."""

    reason: str = ""
    read_by: str = ""
    checked_by: str = ""
    checked: int = 0
    mean_difference: float | None = None
    largest_difference: int | None = None


def check_count(count: int) -> None:
    """Refuse a negative number of patches."""
    if count < 0:
        raise CheckError(f"check_patches is {count}; it counts patches per scale and must be at least 0")


def compare_readers(store: PatchStore, path: Path, count: int, *, quality: int = JPEG_QUALITY) -> Check:
    """Decode ``count`` patches per scale of a store again from its slide, by the reader that did not make them.

    The second reader's pixels are cut and encoded as those of the store were, with its JPEG ``quality``, so that two
    readers that agree do not differ at all. The patches are drawn at random, always the same ones for slides of the
    same name.
    """
    with Slide(path) as slide:
        if count == 0:
            return Check("", slide.reader, "nobody: check_patches is 0")
        other = slide.by_other_reader()
        if other is None:
            return Check("", slide.reader, "nobody: no other reader reads this slide")
        scales = range(len(store.scales))
        with other:
            found = [_compare_scale(store, scale, slide, other, count, quality) for scale in scales]
    checked = sum(each.checked for each in found)
    if not checked:
        return Check("", slide.reader, f"nobody: {other.reader} can read none of the patches")
    reason = "; ".join(each.reason for each in found if each.reason)
    mean = max(each.mean_difference for each in found if each.mean_difference is not None)
    largest = max(each.largest_difference for each in found if each.largest_difference is not None)
    return Check(reason, slide.reader, other.reader, checked, round(mean, 3), largest)


def _compare_scale(store: PatchStore, scale: int, slide: Slide, other: Slide, count: int, quality: int) -> Check:
    footprint = float(store.attributes["footprints"][scale])
    # With 1 µm/px at level 0, a scale is a number of level-0 pixels; the footprint must not be moved to a level's.
    own, plan = (each.plan(footprint / store.patch_size, store.patch_size, 1.0) for each in (slide, other))
    plan = plan._replace(footprint=footprint)
    side = max(1.0, plan.footprint / plan.downsample)
    count = max(1, min(count, int(_MAX_PIXELS / side**2)))
    coords = store.coords(scale)
    rng = np.random.default_rng([zlib.crc32(store.name.encode()), scale])
    indices = np.sort(rng.choice(len(coords), min(count, len(coords)), replace=False))
    means, corners, largest = [], [], 0
    for index, again in cut_again(other, plan, coords, indices, store.patch_size):
        seen = imagecodecs.jpeg8_decode(encode_patch(again, quality, "444"))
        difference = np.abs(seen.astype(int) - store.read([index], scale)[0])
        means.append(float(difference.mean()))
        largest = max(largest, int(difference.max()))
        corners.append(coords[index])
    if not means:
        return Check()
    is_same = other.level_dimensions[plan.level] == slide.level_dimensions[own.level]
    is_whole = len(coords) == store.attributes["grid_patches"][scale]
    tolerance = TOLERANCE if is_same and is_whole else LOOSE_TOLERANCE
    x, y = corners[int(np.argmax(means))].tolist()
    reason = (
        f"{slide.path}: the two readers disagree: at {store.scales[scale]:g} µm/px the patch at x {x}, y {y} differs by"
        f" {max(means):.1f} grey levels on average and by {largest} at most between {slide.reader} and {other.reader}; an"
        f" average of {tolerance:g} is tolerated. One of them decodes the slide wrongly: export it again, or report it"
    )
    return Check(
        reason if max(means) > tolerance else "",
        checked=len(means),
        mean_difference=max(means),
        largest_difference=largest,
    )
