"""The part of a slide that holds pixels, from whose corner some viewers count.

OpenSlide states it as ``openslide.bounds-x``, ``-y``, ``-width`` and ``-height``, for MIRAX and Leica slides above all.
Level-0 coordinates count from the corner of the whole slide, also in OpenSlide, TRIDENT and CLAM; QuPath crops to the
bounds, unless a slide is opened with ``--no-crop``, and counts from their corner.
"""

from collections.abc import Mapping

_FIELDS = ("x", "y", "width", "height")


def read_bounds(properties: Mapping[str, object]) -> list[int] | None:
    """Left, top, width and height of the part that holds pixels, level-0 pixels; None where not all four are stated.

    Args:
        properties: Of the slide, as its reader gives them.
    """
    for reader in ("openslide", "tiffslide"):
        stated = [properties.get(f"{reader}.bounds-{field}") for field in _FIELDS]
        try:
            return [int(str(value)) for value in stated]
        except ValueError:  # absent, or no whole number: then QuPath does not crop either
            continue
    return None
