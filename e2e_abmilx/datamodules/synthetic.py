"""Synthetic slides, for the demo."""

from pathlib import Path
from typing import Any

from e2e_abmilx.datamodules.slides import SlideDataModule
from e2e_abmilx.synthetic import write_cohort

_LESION: dict[str, str | None] = {"label": "lesion"}  # stated in the settings of a run, from which the report reads it


class SyntheticDataModule(SlideDataModule):
    """Bags of synthetic slides, which are drawn first and then processed as real slides are.

    Args:
        folder: Folder of slides, masks, labels and cache.
        num_slides: Number of slides.
        side: Side of a slide in pixels, a multiple of 256.
        columns: The label column; by default ``lesion`` (yes or no).
        patch_size: Side of a patch in pixels.
        patches_per_bag: Patches of a training bag.
        batch_size: Bags per training batch.
        **bags: All other arguments of :class:`SlideDataModule`. The slides are the same for every seed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_slides: int = 48,
        side: int = 2048,
        columns: dict[str, str | None] | None = _LESION,
        patch_size: int = 128,
        patches_per_bag: int = 64,
        batch_size: int = 4,
        **bags: Any,  # noqa: ANN401
    ) -> None:
        folder = Path(folder)
        super().__init__(
            folder / "cache",
            folder / "labels.csv",
            slides=folder / "slides",
            columns=columns or _LESION,
            patch_size=patch_size,
            patches_per_bag=patches_per_bag,
            batch_size=batch_size,
            **bags,
        )
        self.folder, self.num_slides, self.side = folder, num_slides, side
        #: Folder of the true masks of the slides.
        self.masks = folder / "masks"

    def prepare_data(self) -> None:
        """Draw the slides that do not exist yet, then cache them."""
        write_cohort(self.folder, slides=self.num_slides, side=self.side)
        super().prepare_data()
