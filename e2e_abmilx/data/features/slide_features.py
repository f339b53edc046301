"""Features and coordinates of the patches of one slide, in the format of any tool.

Letters: N patches of the slide, n patches to read, D features.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.errors import InputError


class FeatureError(InputError):
    """A file of features cannot be used.

    Attributes:
        empty: Whether the only problem is that it holds no patch.
    """

    def __init__(self, message: str, *, empty: bool = False) -> None:
        super().__init__(message)
        self.empty = empty


class NoCoordsError(FeatureError):
    """A file of features does not state the coordinates of its patches."""


class SlideFeatures(ABC):
    """Features of the patches of one slide, read on demand.

    Args:
        path: The file.
        shape: Shape of its table of features: ``(N, D)``, or ``(1, N, D)`` for a batch of one slide.

    Attributes:
        num_patches: N, at least 1.
        num_features: D.
        patch_size_level0: Side of a patch in level-0 pixels; None where unknown.
        mpp: µm per pixel of the patches that the encoder saw; None where unknown.
        encoder: Description of the encoder; None where unknown.

    Raises:
        FeatureError: The table is empty or has another shape.
    """

    patch_size_level0: float | None = None
    mpp: float | None = None
    encoder: str | None = None

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path = path
        self._batched = len(shape) == 3 and shape[0] == 1
        table = shape[1:] if self._batched else shape
        if table == (0,) or (len(table) == 2 and table[0] == 0):
            raise FeatureError(
                f"{path} holds no patch: its features have shape {tuple(shape)}; extract the slide again, remove it from"
                " the label table and the folder, or leave its case out (data.skip_missing: true)",
                empty=True,
            )
        if len(table) != 2 or table[1] == 0:
            raise FeatureError(
                f"{path} has features of shape {tuple(shape)}, not (patches, features);"
                " give the features of patches, not of whole slides"
            )
        self.num_patches, self.num_features = table

    def read(self, rows: NDArray[np.int64] | None = None) -> Tensor:
        """Read features in float32, shape ``(n, D)``.

        Args:
            rows: Patches to read, ascending, shape ``(n,)``; None for all.

        Raises:
            FeatureError: The file is damaged, or features are NaN or infinite.
        """
        features = self._read(rows)
        # a sum is far cheaper than a test of each number; it may overflow, so then each number is tested
        if not features.sum().isfinite():
            broken = (~features.isfinite()).any(dim=1)
            if broken.any():
                raise FeatureError(
                    f"{self.path} has NaN or infinite features in {int(broken.sum())} of the {len(broken)} patches"
                    " that were read; extract the slide again, in float32 if it was in half precision"
                )
        return features

    def coords(self) -> NDArray[np.int64]:
        """Return the level-0 ``(x, y)`` of the top left corner of each patch, shape ``(N, 2)``.

        Raises:
            NoCoordsError: The file does not state them.
            FeatureError: They are not one whole ``(x, y)`` per patch.
        """
        coords = self._read_coords()
        corners = coords[0] if coords.ndim == 3 and len(coords) == 1 else coords
        if corners.shape != (self.num_patches, 2) or corners.dtype.kind not in "iuf":
            raise FeatureError(
                f"{self.path} has coords {coords.dtype} of {coords.shape}, not a whole (x, y) for each of"
                f" {self.num_patches} patches; extract the slide again"
            )
        if corners.dtype.kind == "f":
            self._refuse_fractions(corners)
        return corners.astype(np.int64)

    @abstractmethod
    def _read(self, rows: NDArray[np.int64] | None) -> Tensor:
        """Read features as :meth:`read` does, without checks."""

    @abstractmethod
    def _read_coords(self) -> NDArray[np.generic]:
        """Read coordinates as :meth:`coords` does, without checks."""

    def _refuse_fractions(self, coords: NDArray[np.generic]) -> None:
        """Refuse floating-point coordinates that are not whole pixels, or may have been rounded to them."""
        values = coords.astype(np.float64)
        odd = (values != np.rint(values)).any(axis=1)  # NaN is unequal to itself
        if odd.any():
            raise FeatureError(
                f"{self.path} has coords that are not whole pixels in {int(odd.sum())} of {len(values)} patches, first"
                f" {tuple(values[odd][0].tolist())}; they may be in another unit, such as µm: extract the slide again"
            )
        # the largest number up to which the float type represents every integer
        exact = 2.0 ** (np.finfo(str(coords.dtype)).nmant + 1)
        if np.abs(values).max() > exact:
            raise FeatureError(
                f"{self.path} has coords {coords.dtype} up to {np.abs(values).max():g}, a type that is exact only up to"
                f" {exact:g}: they have been rounded; extract the slide again, with integer coords"
            )
