"""Colour statistics of the tissue of stored slides, which show staining and scanner but no structure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.io.progress import track
from e2e_abmilx.store import CohortIndex, PatchStore
from e2e_abmilx.store.locations import Location, store_path

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PATCHES = 16  # of a slide, evenly spread
_STEP = 4  # every fourth pixel of every fourth row
_GLASS = 220  # of 255; glass is at least as bright in all three colours


def slide_colours(store: PatchStore) -> NDArray[np.float64] | None:
    """Return mean, std and quantiles of red, green and blue over the tissue of a slide, shape ``(21,)``.

    They are those of 16 patches of the coarsest scale, without glass: the patches are read in place of the thumbnail,
    because imported stores have no thumbnail, and decoding a large one takes longer. None for a slide without tissue.
    """
    scale = len(store.scales) - 1
    count = store.num_patches(scale)
    if not count:
        return None
    chosen = np.unique(np.linspace(0, count - 1, _PATCHES).round().astype(np.int64))
    pixels = store.read(chosen, scale)[:, ::_STEP, ::_STEP].reshape(-1, 3)
    tissue = pixels[(pixels < _GLASS).any(axis=1)].astype(np.float64)
    if not len(tissue):
        return None
    statistics = [tissue.mean(axis=0), tissue.std(axis=0), *np.quantile(tissue, QUANTILES, axis=0)]
    return np.concatenate(statistics)


def read_colours(cache: Location, slides: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return the colour statistics of the slides that a cache has, by the slide's name."""
    stored = set(CohortIndex(cache).slides())
    there = [slide for slide in slides if slide in stored]
    found = {
        slide: slide_colours(PatchStore(store_path(cache, slide)))
        for slide in track(there, "reading colours of", "slides")
    }
    return {slide: colours for slide, colours in found.items() if colours is not None}
