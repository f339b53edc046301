"""Bags of extracted features."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag
from e2e_abmilx.data.feature_bags import FeatureBags, RandomFeatureBags, check_features
from e2e_abmilx.data.features import FeatureFolder, features_digest
from e2e_abmilx.data.inputs import FeatureInput
from e2e_abmilx.data.seen_cases import Marks
from e2e_abmilx.datamodules.base import BagDataModule
from e2e_abmilx.slides import Slide
from e2e_abmilx.slides.slide_files import find_slides

logger = logging.getLogger(__name__)


class FeatureDataModule(BagDataModule):
    """Bags of extracted features, for two-stage training with a ``Precomputed`` encoder.

    A training bag holds all features of a case, or ``max_patches`` random ones; evaluation uses all features.

    Args:
        features: Folder of features, one ``<slide>.h5`` or ``<slide>.pt`` per slide, as written by TRIDENT, CLAM, STAMP,
            eva, slideflow, the authors or ``FeatureWriter``.
        labels: Label table (CSV), as in :class:`~e2e_abmilx.cohort.CohortPlan`.
        slides: The slides: a folder, a file or a CSV. Only coordinates of STAMP, which are in µm, and of slideflow
            need them, for their µm per pixel.
        assume_mpp: Level-0 µm per pixel of slides that state none, or of all slides if ``slides`` is not given.
        max_patches: Maximum number of patches in a training bag; by default all.
        **cohort: All other arguments of :class:`BagDataModule`.
    """

    def __init__(
        self,
        features: Path,
        labels: Path | None = None,
        *,
        slides: Path | None = None,
        assume_mpp: float | None = None,
        max_patches: int | None = None,
        **cohort: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(labels, **cohort)
        if max_patches is not None and max_patches < 1:
            raise ValueError(f"max_patches is {max_patches}; it counts patches and must be at least 1")
        self.features, self.slides, self.assume_mpp = Path(features), slides, assume_mpp
        self.max_patches = max_patches
        #: D, features per patch; known after ``setup``.
        self.num_features: int | None = None
        self._input: FeatureInput | None = None

    @cached_property
    def folder(self) -> FeatureFolder:
        """The feature files, listed at first use."""
        return FeatureFolder(self.features, slide_mpp=self._read_mpp(), assume_mpp=self.assume_mpp)

    def available(self) -> tuple[Path, list[str]]:
        """Return the folder of features and its slides; with ``skip_missing``, without slides that have no patch."""
        empty = self.folder.empty() if self.plan.skip_missing else []
        for slide in empty:
            logger.warning("%s holds no patch: its case is left out", self.folder.files[slide])
        return self.features, [slide for slide in self.folder.files if slide not in empty]

    def check(self, cases: Sequence[Case]) -> None:
        """Refuse files that are empty, or differ in width, encoder or µm per pixel."""
        self._input = check_features(cases, self.folder)
        self.num_features = self._input.num_features

    def describe_input(self) -> FeatureInput | None:
        """Return width and, as far as the files state it, encoder and µm per pixel of the features."""
        return self._input

    def slide_marks(self, cases: Sequence[Case]) -> Marks:
        """Return a digest of the features of each slide."""
        return {slide: features_digest(self.folder.open(slide)) for case in cases for slide in case.slides}

    def random_bags(self, split: str) -> Dataset[Bag]:
        """Return all features of each case, or a random subset."""
        cases, targets = self.cases[split], self.targets[split]
        return RandomFeatureBags(cases, targets, self.folder, max_patches=self.max_patches, seed=self.seed)

    def whole_bags(self, split: str) -> tuple[Dataset[Bag], Sequence[int]]:
        """Return all features of each case, slide by slide."""
        bags = FeatureBags(self.cases[split], self.targets[split], self.folder)
        return bags, [part.case for part in bags.parts]

    def _read_mpp(self) -> dict[str, float]:
        """Return the level-0 µm per pixel of each slide that is given."""
        resolutions = {}
        for file in find_slides(self.slides) if self.slides else []:
            with Slide(file.path) as slide:
                resolutions[file.name] = slide.resolution(self.assume_mpp, override_mpp=file.mpp).mpp
        return resolutions
