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
    """A file of features that cannot be used."""


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
        shape: Of its table of features.

    Raises:
        FeatureError: The table is not of shape (N, D), or is empty.
    """

    patch_size_level0: float | None = None
    mpp: float | None = None

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        if len(shape) != 2:
            raise FeatureError(
                f"{path} has features of shape {tuple(shape)}, not (patches, features);"
                " give the features of patches, not of whole slides"
            )
        if 0 in shape:
            raise FeatureError(
                f"{path} holds no patch: its features have shape {tuple(shape)}; extract the slide again,"
                " or take it out of the label table and the folder"
            )
        self.path = path
        self.num_patches, self.num_features = shape

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
        """The coordinates, once found to be whole numbers and one ``(x, y)`` a patch."""
        if coords.shape != (self.num_patches, 2) or coords.dtype.kind not in "iu":
            raise FeatureError(
                f"{self.path} has coords {coords.dtype} of {coords.shape}, not a whole (x, y) for each of"
                f" {self.num_patches} patches; extract the slide again"
            )
        return coords.astype(np.int64)
