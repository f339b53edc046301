"""TRIDENT's files, and CLAM's, which have the same two tables but say nothing about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.data.features.h5 import H5Features, import_h5py, open_h5
from e2e_abmilx.data.features.slide_features import FeatureError
from e2e_abmilx.store import PatchStore

_POWER_TIMES_MPP = 10.0  # a magnification of 20 stands for 0.5 µm/px

_ORIGIN = "level-0 pixels from the corner of the whole slide: openslide.bounds-x and -y are not subtracted"

#: What a file says of its tables: for ``features`` and ``coords`` the attributes of each.
Attributes = Mapping[str, Mapping[str, str | int]]


class TridentFeatures(H5Features):
    """``features`` (N, D) and level-0 ``coords`` (N, 2).

    The size of a patch is an attribute of ``coords``: ``patch_size_level0``, or in older files ``patch_size`` with the
    level that it counts pixels of. In CLAM's ``h5_files`` there is neither. The resolution is what the magnification
    stands for.

    Args:
        path: The file.
        file: The same, open.
    """

    def __init__(self, path: Path, file: Any) -> None:  # noqa: ANN401 - h5py may be absent
        super().__init__(path, file, "features")
        stated = dict(file["coords"].attrs) if "coords" in file else {}
        self.patch_size_level0 = _footprint(stated)
        magnification = stated.get("target_magnification")
        self.mpp = _POWER_TIMES_MPP / float(magnification) if magnification else None

    def coords(self) -> NDArray[np.int64]:
        """Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``."""
        return self._checked_coords(self._stored_coords())


def _footprint(stated: Mapping[str, Any]) -> float | None:
    """Level-0 pixels along a patch, as far as a file's attributes tell."""
    if "patch_size_level0" in stated:
        return float(stated["patch_size_level0"])
    downsample = stated.get("downsample", 1 if stated.get("patch_level") == 0 else None)
    if "patch_size" not in stated or downsample is None:
        return None
    custom = float(stated.get("custom_downsample", 1))
    return float(stated["patch_size"]) * float(np.ravel(downsample)[0]) * custom


class TridentWriter:
    """Write the features of one slide part by part; the file takes its name only when it is whole.

    What a killed process leaves is a hidden file, which the next one overwrites.

    Args:
        path: The ``<slide>.h5`` to make, in the place of an earlier one.
        num_patches: N.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``; None where unknown.
        attributes: What to say of the tables.
    """

    def __init__(
        self, path: Path, num_patches: int, coords: NDArray[np.int64] | None, attributes: Attributes
    ) -> None:
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
                f"the encoder gives NaN or infinite features for {self._path.stem}; take a precision with a wider range"
                " (trainer.precision: bf16-mixed, 32-true)"
            )
        if not self._written:
            table = self._file.create_dataset("features", (self._num_patches, features.shape[1]), "float32")
            table.attrs.update(self._attributes["features"])
        stop = self._written + len(features)
        self._file["features"][self._written : stop] = features.float().cpu().numpy()
        self._written = stop

    def finish(self) -> None:
        """Let the file take its name."""
        self._file.close()
        self._partial.replace(self._path)

    def abandon(self) -> None:
        """Remove what there is."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def read_attributes(path: Path) -> dict[str, dict[str, Any]]:
    """What a file says of each of its tables.

    Raises:
        FeatureError: It cannot be read.
    """
    with open_h5(path) as file:
        return {
            name: {key: np.asarray(value).tolist() for key, value in file[name].attrs.items()}
            for name in file
        }


def describe_patches(store: PatchStore) -> dict[str, int]:
    """What TRIDENT says of patches, as far as a store knows it.

    Args:
        store: The patches; those of its finest scale are described.
    """
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
