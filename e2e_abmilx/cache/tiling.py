"""The tiling of a cache: scales, patch size, overlap and tissue, which together decide its patches."""

import logging
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from e2e_abmilx.errors import InputError
from e2e_abmilx.slides import Slide
from e2e_abmilx.slides.slide_files import SlideFile

logger = logging.getLogger(__name__)

_LEVEL = re.compile(r"level(\d{1,2})")


class TilingError(InputError):
    """A setting is out of range."""


class Tiling(NamedTuple):
    """The settings that decide the patches of a slide: the options of `cache_slides`, ``mpp`` in µm/px, finest first."""

    mpp: tuple[float, ...]
    patch_size: int
    overlap: float
    min_tissue: float
    quality: int
    assume_mpp: float | None

    def as_json(self) -> dict[str, object]:
        """Return the settings as a store records them."""
        return {**self._asdict(), "mpp": list(self.mpp)}


def parse_scales(
    scales: Sequence[float | str], slides: Sequence[SlideFile] = (), assume_mpp: float | None = None
) -> tuple[float, ...]:
    """Return scales as µm/px, finest first: ``("20x", 1.0)`` → ``(0.5, 1.0)``.

    A pyramid level, such as ``level1``, means the resolution of that level in the first slide that can be opened, has
    a resolution and has all levels asked for, so that slides of different scanners still get the same scale;
    ``assume_mpp`` is the level-0 µm per pixel of slides that state none.

    Raises:
        TilingError: A scale is none of these, no slide has that level, or two scales are the same.
    """
    texts = [str(scale).strip().lower() for scale in scales]
    levels = [int(found[1]) for found in map(_LEVEL.fullmatch, texts) if found]
    numbers = _level_scales(levels, slides, assume_mpp) if levels else []
    for scale, text in zip(scales, texts, strict=True):
        if _LEVEL.fullmatch(text):
            continue
        try:
            numbers.append(10 / float(text[:-1]) if text.endswith("x") else float(text))
        except (ValueError, ZeroDivisionError):
            raise TilingError(
                f"scale {scale!r} is neither µm/px, as 0.5, nor a magnification, as 20x, nor a level, as level1"
            ) from None
    if not all(0 < number < math.inf for number in numbers) or len(set(numbers)) < len(numbers):
        raise TilingError(f"mpp is {numbers}; give different positive µm/px, for example [0.5, 1.0]")
    return tuple(sorted(numbers))


def _level_scales(levels: Sequence[int], slides: Sequence[SlideFile], assume_mpp: float | None) -> list[float]:
    """Return the µm/px of pyramid levels, all of the same slide."""
    for file in slides:
        known = _known_levels(file, assume_mpp)
        if max(levels) < len(known):
            scales = [known[level] for level in levels]
            for level, scale in zip(levels, scales, strict=True):
                logger.info("level%d is taken as %g µm/px, from %s", level, scale, file.path)
            return scales
    raise TilingError(
        f"scale level{max(levels)}: none of {len(slides)} slides opens, states its µm/px and has that level;"
        " ask for a lower level, or for µm/px, as 0.5, or give assume_mpp if the slides state no µm/px"
    )


def _known_levels(file: SlideFile, assume_mpp: float | None) -> list[float]:
    """Return the µm/px of a slide's levels, finest first; none if it cannot be opened or has no resolution.

    Four digits, so that the number can be typed again and is the same for the next slide of the scanner.
    """
    try:
        with Slide(file.path) as slide:
            mpp = slide.resolution(assume_mpp, override_mpp=file.mpp).mpp
            return [float(f"{mpp * downsample:.4g}") for downsample in slide.level_downsamples]
    except Exception:  # noqa: BLE001 - what is wrong with this slide is reported when it is cached
        return []


def check(tiling: Tiling) -> None:
    """Refuse settings that are out of range, each with its value and its range."""
    if not tiling.mpp:
        raise TilingError("mpp is empty; give at least one scale in µm/px, for example [0.5, 1.0]")
    if tiling.patch_size < 8:
        raise TilingError(f"patch_size is {tiling.patch_size}; a patch has at least 8 pixels along its side")
    if not 0 <= tiling.overlap < 1:
        raise TilingError(f"overlap is {tiling.overlap}; it is a fraction of the patch and must lie in [0, 1)")
    if not 0 <= tiling.min_tissue <= 1:
        raise TilingError(f"min_tissue is {tiling.min_tissue}; it is a fraction of the patch, in [0, 1]")
    if not 1 <= tiling.quality <= 100:
        raise TilingError(f"quality is {tiling.quality}; JPEG quality lies between 1 and 100")
    if tiling.assume_mpp is not None and tiling.assume_mpp <= 0:
        raise TilingError(f"assume_mpp is {tiling.assume_mpp}; µm/px are positive, for example 0.25")
