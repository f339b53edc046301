"""HDF5 files, the format of TRIDENT, CLAM and STAMP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.data.features.slide_features import FeatureError, NoCoordsError, SlideFeatures

_BLOCK = 4096  # patches read at once, 16 MB of 1024 features: limits the memory for rows that are not asked for


def import_h5py() -> Any:  # noqa: ANN401 - it may be absent
    """Import h5py, which is an optional dependency.

    Raises:
        FeatureError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise FeatureError("features in .h5 files need h5py; `pip install e2e-abmilx[features]`") from error
    return h5py


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """Open a file for reading.

    Raises:
        FeatureError: It cannot be read, or lacks a table or attribute.
    """
    h5py = import_h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise FeatureError(f"{path} cannot be read ({error}); write it again") from error


class H5Features(SlideFeatures):
    """The table ``key`` of features in an HDF5 file, which is opened as ``file``.

    Raises:
        FeatureError: The table does not hold features.
    """

    def __init__(self, path: Path, file: Any, key: str) -> None:  # noqa: ANN401 - h5py may be absent
        table = file[key]
        if getattr(table, "dtype", np.dtype(object)).kind != "f":
            raise FeatureError(f"{path} has no real numbers under {key!r}; give the folder of features")
        super().__init__(path, table.shape)
        self._key = key

    def _read(self, rows: NDArray[np.int64] | None) -> Tensor:
        wanted = np.arange(self.num_patches) if rows is None else rows
        features = np.empty((len(wanted), self.num_features), np.float32)
        with open_h5(self.path) as file:
            table = file[self._key]
            for start in range(0, self.num_patches, _BLOCK):
                first, last = np.searchsorted(wanted, (start, start + _BLOCK))
                if first < last:
                    block = slice(wanted[first], wanted[last - 1] + 1)
                    rows_here = table[0, block] if self._batched else table[block]
                    features[first:last] = rows_here[wanted[first:last] - wanted[first]]
        return torch.from_numpy(features)

    def _read_coords(self) -> NDArray[np.generic]:
        with open_h5(self.path) as file:
            if "coords" not in file:
                raise NoCoordsError(
                    f"{self.path} has no coords, so the positions of its patches are unknown; it holds {sorted(file)}"
                )
            coords: NDArray[np.generic] = file["coords"][:]
        return coords
