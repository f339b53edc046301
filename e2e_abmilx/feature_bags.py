"""Bags of features that were extracted beforehand."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.utils.data import Dataset

from e2e_abmilx.bags import Bag, BagError, Target, make_bag
from e2e_abmilx.cohort import Case
from e2e_abmilx.samplers import Draw


class FeatureBags(Dataset[Bag]):
    """All features of every case, for two-stage training: one ``<slide>.pt`` tensor ``(N, D)`` a slide.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        folder: Folder of the feature files.
    """

    def __init__(self, cases: Sequence[Case], targets: Sequence[Target], folder: Path) -> None:
        self.cases = cases
        self.targets = targets
        self.folder = folder

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, which: Draw | int) -> Bag:
        """Return a single bag without the dimension B; its coordinates are unknown and zero."""
        index = which.case if isinstance(which, Draw) else which
        case = self.cases[index]
        features = torch.cat([load_features(self.folder / f"{slide}.pt") for slide in case.slides]).float()
        coords = torch.zeros(len(features), 2, dtype=torch.int64)
        return make_bag(
            case, self.targets[index], features, torch.zeros(len(features)).long(), coords, last=True
        )


def load_features(path: Path) -> Tensor:
    """Map a file of features into memory, shape ``(N, D)``; nothing but tensors is unpickled.

    Raises:
        BagError: The file is no tensor of that shape.
    """
    try:
        features = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, UnpicklingError) as error:
        raise BagError(
            f"{path} cannot be read as a tensor ({error}); write features with torch.save"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2 or not len(features):
        raise BagError(f"{path} must hold one tensor (patches, features), with at least one patch")
    return features


def check_features(cases: Sequence[Case], folder: Path) -> int:
    """Refuse feature files that cannot make bags together.

    Returns:
        D, the features of a patch.

    Raises:
        BagError: Files differ in their number of features, or are none.
    """
    paths = [folder / f"{slide}.pt" for case in cases for slide in case.slides]
    width = load_features(paths[0]).shape[1]
    for path in paths:
        other = load_features(path).shape[1]
        if other != width:
            raise BagError(
                f"{path} has {other} features a patch, {paths[0]} {width}; extract all with one encoder"
            )
    return width
