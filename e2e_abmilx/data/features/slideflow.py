"""Feature files of slideflow: a tensor and an index of coordinates per slide, and settings per folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.data.features.slide_features import FeatureError, NoCoordsError
from e2e_abmilx.data.features.tensors import TensorFeatures

_SETTINGS = "bags_config.json"


class SlideflowFeatures(TensorFeatures):
    """A file ``<slide>.pt``, with the level-0 centres of its tiles in ``<slide>.index.npz``.

    The corners of tiles follow from ``tile_um`` in ``bags_config.json`` and the µm per pixel of the slide.

    Args:
        path: The ``.pt`` file.
        slide_mpp: Level-0 µm per pixel of the slide; None where unknown.
    """

    def __init__(self, path: Path, slide_mpp: float | None) -> None:
        super().__init__(path)
        file = path.with_name(_SETTINGS)
        with _explain_damage(file):
            settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        tile_um, tile_px = settings.get("tile_um"), settings.get("tile_px")
        if isinstance(tile_um, int | float):  # it may be a magnification, such as "10x"
            self.mpp = tile_um / tile_px if tile_px else None
            self.patch_size_level0 = float(int(tile_um / slide_mpp)) if slide_mpp else None

    def coords(self) -> NDArray[np.int64]:
        """Return the level-0 ``(x, y)`` of the top left corner of each tile, shape ``(N, 2)``."""
        if self.patch_size_level0 is None:
            raise NoCoordsError(
                f"{index_of(self.path)} has the centres of tiles; their corners require tile_um in {_SETTINGS} and the"
                " slide's µm/px; give the slides (data.slides), or one µm/px for all slides (data.assume_mpp)"
            )
        return super().coords() - int(self.patch_size_level0) // 2  # the index holds centres

    def _read_coords(self) -> NDArray[np.generic]:
        file = index_of(self.path)
        with _explain_damage(file), np.load(file, allow_pickle=False) as tables:
            places: NDArray[np.generic] = tables["arr_0"]
        return places


def index_of(path: Path) -> Path:
    """Return the path of the coordinates that belong to a ``.pt`` file."""
    return path.with_suffix(".index.npz")


@contextmanager
def _explain_damage(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise FeatureError(f"{file} cannot be read ({error}); let slideflow write it again") from error
