"""Features of one slide's patches, whichever tool wrote them.

Letters: N patches of the slide, n patches asked for, D features.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.errors import InputError


class FeatureError(InputError):
    """A file of features that cannot be used.

    Attributes:
        empty: Whether all that is wrong is that it holds no patch.
    """

    def __init__(self, message: str, *, empty: bool = False) -> None:
        super().__init__(message)
        self.empty = empty


class NoPlacesError(FeatureError):
    """A file of features that does not say where in the slide its patches lie."""


class SlideFeatures(ABC):
    """Features of one slide's patches, read when they are asked for.

    Attributes:
        path: The file.
        num_patches: N, at least 1.
        num_features: D.
        patch_size_level0: Level-0 pixels along the side of a patch; None where unknown.
        mpp: µm per pixel of the patches as the encoder saw them; None where unknown.

    Args:
        path: The file.
        shape: Of its table of features: (N, D), or (1, N, D), as those write it who save a batch of one slide.

    Raises:
        FeatureError: The table is of another shape, or empty.
    """

    patch_size_level0: float | None = None
    mpp: float | None = None

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path = path
        self._batched = len(shape) == 3 and shape[0] == 1
        table = shape[1:] if self._batched else shape
        if table == (0,) or (len(table) == 2 and table[0] == 0):
            raise FeatureError(
                f"{path} holds no patch: its features have shape {tuple(shape)}; extract the slide again, take it out of"
                " the label table and the folder, or go on without its case (data.skip_missing: true)",
                empty=True,
            )
        if len(table) != 2 or table[1] == 0:
            raise FeatureError(
                f"{path} has features of shape {tuple(shape)}, not (patches, features);"
                " give the features of patches, not of whole slides"
            )
        self.num_patches, self.num_features = table

    def read(self, rows: NDArray[np.int64] | None = None) -> Tensor:
        """Features in float32, shape ``(n, D)``.

        Args:
            rows: Which patches, ascending, shape ``(n,)``; None for all.

        Raises:
            FeatureError: The file is damaged, or features are NaN or infinite.
        """
        features = self._read(rows)
        # A sum is far cheaper than a look at each number; one that overflows is looked at again.
        if not features.sum().isfinite():
            broken = (~features.isfinite()).any(dim=1)
            if broken.any():
                raise FeatureError(
                    f"{self.path} has NaN or infinite features in {int(broken.sum())} of the {len(broken)} patches"
                    " that were read; extract the slide again, in float32 if it was in half precision"
                )
        return features

    @abstractmethod
    def coords(self) -> NDArray[np.int64]:
        """Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.

        Raises:
            NoPlacesError: The file does not say where its patches lie.
            FeatureError: What it says is damaged.
        """

    @abstractmethod
    def _read(self, rows: NDArray[np.int64] | None) -> Tensor:
        """As :meth:`read`, unchecked."""

    def _checked_coords(self, coords: NDArray[np.generic]) -> NDArray[np.int64]:
        """The coordinates as integers, once found to be whole numbers and one ``(x, y)`` a patch."""
        corners = coords[0] if coords.ndim == 3 and len(coords) == 1 else coords
        if corners.shape != (self.num_patches, 2) or corners.dtype.kind not in "iuf":
            raise FeatureError(
                f"{self.path} has coords {coords.dtype} of {coords.shape}, not a whole (x, y) for each of"
                f" {self.num_patches} patches; extract the slide again"
            )
        if corners.dtype.kind == "f":
            self._refuse_fractions(corners)
        return corners.astype(np.int64)

    def _refuse_fractions(self, coords: NDArray[np.generic]) -> None:
        """Refuse floating-point coordinates that are, or may have been rounded from, something else than whole pixels."""
        values = coords.astype(np.float64)
        odd = (values != np.rint(values)).any(axis=1)  # NaN is unequal to itself
        if odd.any():
            raise FeatureError(
                f"{self.path} has coords that are no whole pixels in {int(odd.sum())} of {len(values)} patches, first"
                f" {tuple(values[odd][0].tolist())}; they may be in another unit, such as µm: extract the slide again"
            )
        # beyond it not every whole number has a float of its own
        exact = 2.0 ** (np.finfo(str(coords.dtype)).nmant + 1)
        if np.abs(values).max() > exact:
            raise FeatureError(
                f"{self.path} has coords {coords.dtype} up to {np.abs(values).max():g}, which holds whole numbers to"
                f" {exact:g} only: they have been rounded; extract the slide again, with coords of integers"
            )
