"""Bags of extracted features: random subsets for training, whole cases for evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, BagError, BagSource, Part, Target, make_bag
from e2e_abmilx.data.features import FeatureFolder, NoCoordsError, SlideFeatures
from e2e_abmilx.data.inputs import FeatureInput
from e2e_abmilx.data.samplers import Draw, rows_by_slide

_FLOAT_BYTES = 4  # features are read as float32


@dataclass(eq=False, repr=False)
class RandomFeatureBags(BagSource):
    """All features of a case, or ``max_patches`` random ones, drawn uniformly over all its slides.

    The targets are in the order of the cases.
    """

    cases: Sequence[Case]
    targets: Sequence[Target]
    folder: FeatureFolder
    _: KW_ONLY
    max_patches: int | None
    seed: int

    size_settings = "data.batch_size or data.max_patches"

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: Draw | int) -> Bag:
        """Return a single bag; an integer is the draw of that case in the first epoch."""
        draw = Draw.of(index)
        case = self.cases[draw.case]
        sizes = [self.folder.shape(slide)[0] for slide in case.slides]
        chosen = draw.rng(self.seed, case.id).permutation(sum(sizes))[: self.max_patches]
        chosen_rows = zip(case.slides, sizes, rows_by_slide(chosen, sizes), strict=True)
        pieces = (
            (self.folder.open(slide), rows if len(rows) < size else None)
            for slide, size, rows in chosen_rows
            if len(rows)
        )
        return _read_bag(case, self.targets[draw.case], pieces, last=True)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the features of the largest bag."""
        largest = 0
        for case in self.cases:
            shapes = [self.folder.shape(slide) for slide in case.slides]
            patches = sum(patches for patches, _ in shapes)
            largest = max(largest, _FLOAT_BYTES * shapes[0][1] * min(patches, self.max_patches or patches))
        return largest


@dataclass(eq=False, repr=False)
class FeatureBags(BagSource):
    """All features of all cases, slide by slide; the targets are in the order of the cases."""

    cases: Sequence[Case]
    targets: Sequence[Target]
    folder: FeatureFolder

    def __post_init__(self) -> None:
        #: Case and slide of each item.
        self.parts = [
            Part(index, slide, 0, 0, self.folder.shape(slide)[0], last=slide == case.slides[-1])
            for index, case in enumerate(self.cases)
            for slide in case.slides
        ]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the features of the largest slide."""
        shapes = [self.folder.shape(part.slide) for part in self.parts]
        return _FLOAT_BYTES * max((patches * features for patches, features in shapes), default=0)

    def __getitem__(self, index: int) -> Bag:
        """Return the features of one slide as a single bag."""
        part = self.parts[index]
        case, target = self.cases[part.case], self.targets[part.case]
        return _read_bag(case, target, [(self.folder.open(part.slide), None)], last=part.last)


def known_coords(features: SlideFeatures) -> NDArray[np.int64]:
    """Return the level-0 ``(x, y)`` of each patch, shape ``(N, 2)``; (-1, -1) if the file has no coordinates."""
    try:
        return features.coords()
    except NoCoordsError:
        return np.full((features.num_patches, 2), -1)


def check_features(cases: Sequence[Case], folder: FeatureFolder) -> FeatureInput:
    """Return what the feature files of the cases hold; refuse files that cannot be used in the same bags.

    Raises:
        FeatureError: A file cannot be used, or holds no patch.
        BagError: Files differ in their number of features, their encoder or the µm per pixel of their patches.
    """
    known: FeatureInput | None = None
    first = ""
    for slide in (slide for case in cases for slide in case.slides):
        _, width, encoder, mpp = folder.facts(slide)
        given = FeatureInput(width, encoder, mpp)
        if known is None:
            known, first = given, slide
        if any(known.differences(given)):
            raise BagError(
                f"{folder.files[slide]} has {given}, {folder.files[first]} has {known}; extract all slides with one"
                " encoder, at one µm/px"
            )
        known = FeatureInput(width, known.encoder or encoder, known.mpp or mpp)
    assert known is not None  # a cohort has a case, and a case a slide
    return known


def _read_bag(
    case: Case, target: Target, pieces: Iterable[tuple[SlideFeatures, NDArray[np.int64] | None]], *, last: bool
) -> Bag:
    """Read features into a bag; each piece is a slide with the rows to read, or None for all."""
    features, coords = [], []
    for slide, rows in pieces:
        features.append(slide.read(rows))
        coords.append(known_coords(slide)[slice(None) if rows is None else rows])
    joined = torch.cat(features) if len(features) > 1 else features[0]
    scale = torch.zeros(len(joined), dtype=torch.int64)
    return make_bag(case, target, joined, scale, torch.from_numpy(np.concatenate(coords)), last=last)
