"""Feature files of PyTorch: a tensor (CLAM, the authors), an array (TRIDENT), a list (eva), or a dict of tables."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.serialization import safe_globals

from e2e_abmilx.data.features.slide_features import FeatureError, NoCoordsError, SlideFeatures

_reconstruct: Any = np.empty(0).__reduce__()[0]
# everything that a pickled numpy array consists of, by its names in numpy 2 and 1
_NUMPY: list[Any] = [
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "efdil"),
]


class TensorFeatures(SlideFeatures):
    """Features in a ``.pt`` file; tensors are memory-mapped, except in PyTorch's format before 1.6.

    Raises:
        FeatureError: It does not hold features.
    """

    def __init__(self, path: Path) -> None:
        content, self._coords = _load(path), None
        if isinstance(content, dict):
            if "features" not in content:
                raise FeatureError(
                    f"{path} holds {sorted(map(str, content))}; features must be under 'features', or be the only"
                    " content"
                )
            content, self._coords = content["features"], content.get("coords")
        table = _table(content, path)
        if not table.is_floating_point():
            raise FeatureError(f"{path} holds {table.dtype}, not real numbers; give the folder of features")
        super().__init__(path, tuple(table.shape))
        self._features = table[0] if self._batched else table

    def _read_coords(self) -> NDArray[np.generic]:
        if self._coords is None:
            raise NoCoordsError(
                f"{self.path} does not state the coordinates of its patches; extract features into .h5 files, as TRIDENT does"
            )
        try:
            coords = self._coords
            return _plain(coords, self.path).numpy() if isinstance(coords, Tensor) else np.asarray(coords)
        # a type that numpy lacks, or rows of unequal length
        except (TypeError, ValueError, RuntimeError) as error:
            raise FeatureError(
                f"{self.path} has coords that are not a table of numbers ({error}); write them as integers, one (x, y) per"
                " patch"
            ) from error

    def _read(self, rows: NDArray[np.int64] | None) -> Tensor:
        chosen = self._features if rows is None else self._features[torch.from_numpy(rows)]
        return chosen.float()


def _load(path: Path) -> Any:  # noqa: ANN401 - any content
    """Load a file without running code in it."""
    try:
        with safe_globals(_NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, EOFError, RuntimeError, UnpicklingError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FeatureError(
            f"{path} cannot be read as tensors or arrays ({reason}); save nothing but features with torch.save"
        ) from error


def _table(content: Any, path: Path) -> Tensor:  # noqa: ANN401
    if isinstance(content, Tensor):
        return _plain(content, path)
    if isinstance(content, np.ndarray) and content.dtype.kind in "fiu":
        return torch.from_numpy(content.astype(content.dtype.newbyteorder("="), copy=False))
    if isinstance(content, list) and all(isinstance(part, Tensor) for part in content):
        rows = [_without_batch(_plain(part, path)) for part in content]
        if len({row.shape[1:] for row in rows}) == 1:
            return torch.cat(rows)
    raise FeatureError(
        f"{path} holds {_describe(content)}, not a tensor (patches, features) or a list of tensors; write it again"
    )


def _plain(tensor: Tensor, path: Path) -> Tensor:
    """Return a tensor without its gradient history.

    Raises:
        FeatureError: The tensor is not dense, or has no data.
    """
    kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
    if kind != "strided":
        raise FeatureError(
            f"{path} holds a tensor whose layout is {kind}; write it again as a dense tensor, with features.to_dense()"
        )
    if tensor.is_meta:
        raise FeatureError(f"{path} holds a tensor without data (device 'meta'); extract the slide again")
    return tensor.detach()


def _without_batch(part: Tensor) -> Tensor:
    """Return an element of a list as a table; it may be one row, or a batch of one table."""
    if part.ndim == 1:
        return part.unsqueeze(0)
    return part[0] if part.ndim == 3 and len(part) == 1 else part


def _describe(content: Any) -> str:  # noqa: ANN401
    """Describe content that is not a feature table."""
    if isinstance(content, list):
        return f"a list of {sorted({_describe(part) for part in content[:100]})}"
    if isinstance(content, Tensor | np.ndarray):
        return f"{content.dtype} of {tuple(content.shape)}"
    return f"a {type(content).__name__}"
