"""Feature files of STAMP: features in half precision, coordinates in µm."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.data.features.h5 import H5Features
from e2e_abmilx.data.features.slide_features import FeatureError, NoCoordsError

#: Names of the feature table.
KEYS = ("feats", "patch_embeddings")

_HISTORIC_PX, _HISTORIC_UM = 224, 256.0  # tiles of the first version, whose coordinates are in tile pixels


class StampFeatures(H5Features):
    """``feats`` (N, D), and ``coords`` (N, 2) in µm from the top left corner of the slide.

    Level-0 pixels follow from the µm per pixel of the slide, which the file does not state: ``tile_size_um`` /
    ``tile_size_px`` is the resolution of the tiles.

    Args:
        slide_mpp: Level-0 µm per pixel of the slide; None where unknown.

    Raises:
        FeatureError: It holds features of a slide or a patient, not of tiles.
    """

    def __init__(self, path: Path, file: Any, slide_mpp: float | None) -> None:  # noqa: ANN401 - h5py may be absent
        kind = file.attrs.get("feat_type", "tile")
        if kind != "tile":
            raise FeatureError(f"{path} holds features of a {kind}; give the folder of features of tiles")
        super().__init__(path, file, next(key for key in KEYS if key in file))
        self._slide_mpp = slide_mpp
        self._um_per_unit = 1.0
        tile_px = file.attrs.get("tile_size_px")
        self._tile_um = _tile_um(file.attrs)
        if self._tile_um is None and "coords" in file and _is_historic(file):
            self._tile_um, tile_px = _HISTORIC_UM, _HISTORIC_PX
            self._um_per_unit = _HISTORIC_UM / _HISTORIC_PX
        if self._tile_um is not None:
            self.mpp = self._tile_um / float(tile_px) if tile_px else None
            self.patch_size_level0 = self._tile_um / slide_mpp if slide_mpp else None

    def _read_coords(self) -> NDArray[np.generic]:
        stored = super()._read_coords()
        if self._tile_um is None:
            raise NoCoordsError(
                f"{self.path} does not state the unit of its coords; write it again with `stamp preprocess`"
            )
        if self._slide_mpp is None:
            raise NoCoordsError(
                f"{self.path} has coords in µm, but the slide's µm/px is unknown; give the slides (data.slides), or"
                " one µm/px for all slides (data.assume_mpp)"
            )
        pixels = stored.astype(np.float64) * (self._um_per_unit / self._slide_mpp)
        if not np.isfinite(pixels).all():
            raise FeatureError(f"{self.path} has NaN or infinite coords; write it again")
        return np.rint(pixels).astype(np.int64)


def _tile_um(stated: Mapping[str, Any]) -> float | None:
    """Return the side of a tile in µm; None unless the file states that the unit is µm."""
    if "tile_size_um" in stated:
        return float(stated["tile_size_um"])
    return float(stated["tile_size"]) if stated.get("unit") == "um" and "tile_size" in stated else None


def _is_historic(file: Any) -> bool:  # noqa: ANN401 - h5py may be absent
    """Return whether tiles are 224 apart, the mark of the first version, whose files state no unit."""
    if "tile_size" in file.attrs:
        return round(float(file.attrs["tile_size"])) == _HISTORIC_PX
    gaps = np.concatenate([np.diff(np.unique(column)) for column in file["coords"][:].T])
    return bool(len(gaps)) and round(float(gaps.min())) == _HISTORIC_PX
