"""The demo's data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from e2e_abmilx.datamodules.slides import SlideDataModule
from e2e_abmilx.synthetic import write_cohort


class SyntheticDataModule(SlideDataModule):
    """The demo: synthetic slides are drawn first, then go the way of real ones.

    Args:
        folder: Where slides, masks, labels and cache are kept.
        num_slides: Slides to draw.
        side: Pixels along the side of a slide, a multiple of 256.
        columns: Which column is the label, by default the lesion (yes or no).
        target: As in :class:`SlideDataModule`.
        patch_size: Side of a patch, pixels.
        patches_per_bag: Patches of a training bag.
        coarse_fraction: Share of them drawn from the coarser scale.
        batch_size: Bags in a training batch.
        eval_chunk_size: Patches encoded at once in evaluation.
        num_workers: Processes.
        seed: Of draws and order; the slides are the same for every seed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_slides: int = 48,
        side: int = 2048,
        columns: Mapping[str, str] | None = None,
        target: Literal["label", "survival"] = "label",
        patch_size: int = 128,
        patches_per_bag: int = 64,
        coarse_fraction: float = 0.25,
        batch_size: int = 4,
        eval_chunk_size: int = 256,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        folder = Path(folder)
        super().__init__(
            folder / "cache",
            folder / "labels.csv",
            slides=folder / "slides",
            columns=dict(columns) if columns else {"label": "lesion"},
            target=target,
            patch_size=patch_size,
            patches_per_bag=patches_per_bag,
            coarse_fraction=coarse_fraction,
            batch_size=batch_size,
            eval_chunk_size=eval_chunk_size,
            num_workers=num_workers,
            seed=seed,
        )
        self.folder, self.num_slides, self.side = folder, num_slides, side

    def prepare_data(self) -> None:
        """Draw the slides that are not there yet, then cache them."""
        write_cohort(self.folder, slides=self.num_slides, side=self.side)
        super().prepare_data()
