"""Bags of features that were extracted beforehand: random draws for training, whole cases for evaluation."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, BagError, BagSource, Part, Target, make_bag
from e2e_abmilx.data.features import FeatureFolder, NoPlacesError, SlideFeatures
from e2e_abmilx.data.samplers import Draw

_FLOAT_BYTES = 4  # features are handed on in float32


class RandomFeatureBags(BagSource):
    """All features of a case, or as many as a bag may have, drawn uniformly over all its slides.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        folder: Their features.
        max_patches: Patches in a bag, at most; None for all.
        seed: Of every draw.
    """

    size_settings = "data.batch_size or data.max_patches"

    def __init__(
        self,
        cases: Sequence[Case],
        targets: Sequence[Target],
        folder: FeatureFolder,
        *,
        max_patches: int | None,
        seed: int,
    ) -> None:
        self.cases = cases
        self.targets = targets
        self.folder = folder
        self.max_patches = max_patches
        self.seed = seed

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, draw: Draw | int) -> Bag:
        """Return a single bag without the dimension B; of a mere number, the draw of the first epoch."""
        draw = draw if isinstance(draw, Draw) else Draw(0, draw)
        case = self.cases[draw.case]
        rng = np.random.default_rng([self.seed, draw.epoch, zlib.crc32(case.id.encode()), draw.repeat])
        sizes = [self.folder.shape(slide)[0] for slide in case.slides]
        chosen = np.sort(rng.permutation(sum(sizes))[: self.max_patches])
        features, coords = [], []
        for slide, size, stop in zip(case.slides, sizes, np.cumsum(sizes).tolist(), strict=True):
            own = chosen[(chosen >= stop - size) & (chosen < stop)] - (stop - size)
            if len(own):
                slide_features = self.folder.open(slide)
                features.append(slide_features.read(own if len(own) < size else None))
                coords.append(known_coords(slide_features)[own])
        return _feature_bag(case, self.targets[draw.case], features, coords, last=True)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest bag's features."""
        return max((self._bytes_of(case) for case in self.cases), default=0)

    def _bytes_of(self, case: Case) -> int:
        shapes = [self.folder.shape(slide) for slide in case.slides]
        patches = sum(patches for patches, _ in shapes)
        return _FLOAT_BYTES * shapes[0][1] * min(patches, self.max_patches or patches)


class FeatureBags(BagSource):
    """Every feature of every case, slide after slide.

    Attributes:
        parts: Which case and slide each item is.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        folder: Their features.
    """

    def __init__(self, cases: Sequence[Case], targets: Sequence[Target], folder: FeatureFolder) -> None:
        self.cases = cases
        self.targets = targets
        self.folder = folder
        self.parts = [
            Part(index, slide, 0, 0, folder.shape(slide)[0], last=slide == case.slides[-1])
            for index, case in enumerate(cases)
            for slide in case.slides
        ]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest slide's features."""
        shapes = [self.folder.shape(part.slide) for part in self.parts]
        return _FLOAT_BYTES * max((patches * features for patches, features in shapes), default=0)

    def __getitem__(self, index: int) -> Bag:
        """Return a slide's part of a bag, without the dimension B."""
        part = self.parts[index]
        slide_features = self.folder.open(part.slide)
        features, coords = slide_features.read(), known_coords(slide_features)
        return _feature_bag(
            self.cases[part.case], self.targets[part.case], [features], [coords], last=part.last
        )


def known_coords(features: SlideFeatures) -> NDArray[np.int64]:
    """Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``; (-1, -1) where the file does not say."""
    try:
        return features.coords()
    except NoPlacesError:
        return np.full((features.num_patches, 2), -1)


def check_features(cases: Sequence[Case], folder: FeatureFolder) -> int:
    """Refuse feature files that cannot make bags together.

    Returns:
        D, the features of a patch.

    Raises:
        FeatureError: A file cannot be used, or holds no patch.
        BagError: Files differ in their number of features.
    """
    slides = [slide for case in cases for slide in case.slides]
    width = folder.shape(slides[0])[1]
    for slide in slides:
        other = folder.shape(slide)[1]
        if other != width:
            raise BagError(
                f"{folder.files[slide]} has {other} features a patch, {folder.files[slides[0]]} {width};"
                " extract all with one encoder"
            )
    return width


def _feature_bag(
    case: Case, target: Target, features: Sequence[Tensor], coords: Sequence[np.ndarray], *, last: bool
) -> Bag:
    joined = torch.cat(list(features)) if len(features) > 1 else features[0]
    scale = torch.zeros(len(joined), dtype=torch.int64)
    return make_bag(case, target, joined, scale, torch.from_numpy(np.concatenate(coords)), last=last)
