"""The true patches of tested slides, from masks."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.patch_truth import check_mask, covered_in_store, slide_size_of
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import store_path
from e2e_abmilx.tasks.prediction import PredictedPatches
from e2e_abmilx.training.callbacks.predicted_slides import patches_by_slide

logger = logging.getLogger(__name__)


class SlideTruth:
    """Which patches of a case are marked in the masks of its slides: those that are covered by half at least.

    Args:
        masks: Folder of masks ``<slide>.png``, each of a whole slide at any downsampling, not 0 on the marked tissue.
        bags: The slides. Those without a mask are counted in the log; the truth of their cases is unknown.

    Raises:
        InputError: No slide has a mask, a mask cannot be read or does not fit its slide, or a store does not record the
            size of its slide.
    """

    def __init__(self, masks: Path, bags: WholeSlides) -> None:
        self.masks, self.cache, self.sizes = masks, bags.cache, patches_by_slide(bags)
        slides = [slide for of_case in self.sizes.values() for slide in of_case]
        unknown = [slide for slide in slides if not self._mask(slide).is_file()]
        if len(unknown) == len(slides):
            raise InputError(
                f"{masks} has a mask of none of the {len(slides)} tested slides, such as {unknown[0]}.png; name the folder of"
                " the masks, or leave truth out"
            )
        if unknown:
            logger.info("%s has no mask of %d of the %d tested slides", masks, len(unknown), len(slides))
        for slide in slides:
            if slide not in unknown:
                check_mask(self._mask(slide), slide_size_of(self._store(slide)))

    def of_case(self, case: str, patches: PredictedPatches) -> NDArray[np.bool_] | None:
        """Return whether each patch of a case is marked, shape ``(N,)``; None if a slide of the case has no mask."""
        sizes = self.sizes[case]
        if not all(self._mask(slide).is_file() for slide in sizes):
            return None
        coords, scale = patches.coords.cpu().numpy(), patches.scale.cpu().numpy()
        covered, start = [], 0
        for slide, size in sizes.items():
            own = slice(start, start + size)
            covered.append(covered_in_store(self._store(slide), self._mask(slide), coords[own], scale[own]))
            start += size
        return np.concatenate(covered) >= 0.5

    def _mask(self, slide: str) -> Path:
        return self.masks / f"{slide}.png"

    def _store(self, slide: str) -> PatchStore:
        return PatchStore(store_path(self.cache, slide))
