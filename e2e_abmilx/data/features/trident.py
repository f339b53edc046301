"""Feature files of TRIDENT, and of CLAM, which have the same tables but no attributes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.data.features.h5 import H5Features, import_h5py, open_h5
from e2e_abmilx.data.features.slide_features import FeatureError
from e2e_abmilx.store import PatchStore

_POWER_TIMES_MPP = 10.0  # magnification × µm per pixel: 20× is 0.5 µm/px

_ORIGIN = "level-0 pixels from the corner of the whole slide: openslide.bounds-x and -y are not subtracted"

#: Attributes of the tables ``features`` and ``coords``.
Attributes = Mapping[str, Mapping[str, str | int]]


class TridentFeatures(H5Features):
    """``features`` (N, D) and level-0 ``coords`` (N, 2).

    The patch size is an attribute of ``coords``: ``patch_size_level0``, or in older files ``patch_size`` in pixels of the
    stated level. CLAM's ``h5_files`` have neither. The resolution follows from the magnification.
    """

    def __init__(self, path: Path, file: Any) -> None:  # noqa: ANN401 - h5py may be absent
        super().__init__(path, file, "features")
        stated = dict(file["coords"].attrs) if "coords" in file else {}
        self.patch_size_level0 = _footprint(stated)
        magnification = stated.get("target_magnification")
        self.mpp = _POWER_TIMES_MPP / float(magnification) if magnification else None
        encoder = file["features"].attrs.get("encoder")
        self.encoder = None if encoder is None else str(encoder)


def _footprint(stated: Mapping[str, Any]) -> float | None:
    """Return the side of a patch in level-0 pixels; None if the attributes do not state it."""
    if "patch_size_level0" in stated:
        return float(stated["patch_size_level0"])
    downsample = stated.get("downsample", 1 if stated.get("patch_level") == 0 else None)
    if "patch_size" not in stated or downsample is None:
        return None
    custom = float(stated.get("custom_downsample", 1))
    return float(stated["patch_size"]) * float(np.ravel(downsample)[0]) * custom


class TridentWriter:
    """Writes the features of one slide in parts; the file gets its name only when it is complete.

    A killed process leaves a hidden file, which the next run overwrites.

    Args:
        path: The file ``<slide>.h5`` to write or replace.
        num_patches: N.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``; None where unknown.
        attributes: Attributes of the tables.
    """

    def __init__(self, path: Path, num_patches: int, coords: NDArray[np.int64] | None, attributes: Attributes) -> None:
        self._path, self._num_patches, self._attributes = path, num_patches, attributes
        self._partial = path.with_name(f".{path.name}.partial")
        self._written = 0
        self._file = import_h5py().File(self._partial, "w")
        if coords is not None:
            self._file.attrs["coords_origin"] = _ORIGIN
            self._file["coords"] = coords
            self._file["coords"].attrs.update(attributes["coords"])

    def write(self, features: Tensor) -> None:
        """Append features, shape ``(n, D)``.

        Raises:
            FeatureError: They are NaN or infinite.
        """
        if not features.isfinite().all():
            raise FeatureError(
                f"the encoder gives NaN or infinite features for {self._path.stem}; use a precision with a wider range"
                " (trainer.precision: bf16-mixed, 32-true)"
            )
        if not self._written:
            table = self._file.create_dataset("features", (self._num_patches, features.shape[1]), "float32")
            table.attrs.update(self._attributes["features"])
        stop = self._written + len(features)
        self._file["features"][self._written : stop] = features.float().cpu().numpy()
        self._written = stop

    def finish(self) -> None:
        """Give the complete file its name."""
        self._file.close()
        self._partial.replace(self._path)

    def abandon(self) -> None:
        """Remove the incomplete file."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def read_attributes(path: Path) -> dict[str, dict[str, Any]]:
    """Return the attributes of each table of a file.

    Raises:
        FeatureError: The file cannot be read.
    """
    with open_h5(path) as file:
        return {name: {key: np.asarray(value).tolist() for key, value in file[name].attrs.items()} for name in file}


def describe_patches(store: PatchStore) -> dict[str, int]:
    """Return TRIDENT's attributes of ``coords``, for the finest scale of a store, as far as the store knows them."""
    facts = store.attributes
    described = {"patch_size": store.patch_size}
    if facts.get("footprints"):
        described["patch_size_level0"] = round(facts["footprints"][0])
    if facts.get("slide_mpp"):
        described["level0_magnification"] = round(_POWER_TIMES_MPP / facts["slide_mpp"])
    if store.scales[0] > 0:
        described["target_magnification"] = round(_POWER_TIMES_MPP / store.scales[0])
    if facts.get("tiling"):
        described["overlap"] = round(facts["tiling"]["overlap"] * store.patch_size)
    if facts.get("slide_size"):
        described["level0_width"], described["level0_height"] = facts["slide_size"]
    if facts.get("slide_bounds"):
        described["bounds_x"], described["bounds_y"] = facts["slide_bounds"][:2]
    return described
