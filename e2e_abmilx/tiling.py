"""What decides the patches of a cache, apart from its slides."""

from collections.abc import Sequence
from typing import NamedTuple

from e2e_abmilx.errors import InputError


class TilingError(InputError):
    """A setting out of range."""


class Tiling(NamedTuple):
    """What decides the patches of a store, apart from the slide.

    Attributes:
        mpp: µm/px of each scale, finest first.
        patch_size: Side of a patch, pixels.
        overlap: Share of a patch that neighbours have in common, in [0, 1).
        min_tissue: Smallest share of tissue in a patch, in [0, 1].
        quality: JPEG quality, 1 to 100.
        assume_mpp: Level-0 µm/px of a slide that states none.
    """

    mpp: tuple[float, ...]
    patch_size: int
    overlap: float
    min_tissue: float
    quality: int
    assume_mpp: float | None

    def as_json(self) -> dict[str, object]:
        """What a store records."""
        return {**self._asdict(), "mpp": list(self.mpp)}


def parse_scales(scales: Sequence[float | str]) -> tuple[float, ...]:
    """µm/px of scales that may be spelt as magnifications, finest first: ``("20x", 1.0)`` → ``(0.5, 1.0)``.

    Raises:
        TilingError: A scale is neither a number nor a magnification.
    """
    numbers = []
    for scale in scales:
        text = str(scale).strip().lower()
        try:
            numbers.append(10 / float(text[:-1]) if text.endswith("x") else float(text))
        except (ValueError, ZeroDivisionError):
            raise TilingError(
                f"scale {scale!r} is neither µm/px, as 0.5, nor a magnification, as 20x"
            ) from None
    return tuple(sorted(numbers))


def check(tiling: Tiling) -> None:
    """Refuse settings out of range.

    Raises:
        TilingError: Names the setting, its value and its range.
    """
    if not tiling.mpp or min(tiling.mpp) <= 0 or len(set(tiling.mpp)) < len(tiling.mpp):
        raise TilingError(f"mpp {list(tiling.mpp)}: give different positive µm/px, for example [0.5, 1.0]")
    if tiling.patch_size < 8:
        raise TilingError(f"patch_size is {tiling.patch_size}; a patch has at least 8 pixels along its side")
    if not 0 <= tiling.overlap < 1:
        raise TilingError(f"overlap is {tiling.overlap}; it is a share of the patch and must lie in [0, 1)")
    if not 0 <= tiling.min_tissue <= 1:
        raise TilingError(
            f"min_tissue is {tiling.min_tissue}; it is a share of the patch and must lie in [0, 1]"
        )
    if not 1 <= tiling.quality <= 100:
        raise TilingError(f"quality is {tiling.quality}; JPEG quality lies between 1 and 100")
    if tiling.assume_mpp is not None and tiling.assume_mpp <= 0:
        raise TilingError(f"assume_mpp is {tiling.assume_mpp}; µm/px are positive, for example 0.25")
