"""The bounds of a slide: the part that holds pixels, from whose corner some viewers count coordinates.

OpenSlide states them as ``openslide.bounds-x``, ``-y``, ``-width`` and ``-height``, above all for MIRAX and Leica slides.
Level-0 coordinates count from the corner of the whole slide, also in OpenSlide, TRIDENT and CLAM. QuPath crops a slide
to its bounds and counts from their corner, unless the slide is opened with ``--no-crop``.
"""

from collections.abc import Mapping

_FIELDS = ("x", "y", "width", "height")


def read_bounds(properties: Mapping[str, object]) -> list[int] | None:
    """Return left, top, width and height (level-0 pixels) of a slide's bounds; None unless all four are stated."""
    for reader in ("openslide", "tiffslide"):
        stated = [properties.get(f"{reader}.bounds-{field}") for field in _FIELDS]
        try:
            return [int(str(value)) for value in stated]
        except ValueError:  # absent or no whole number; QuPath does not crop either then
            continue
    return None
