"""Lightning data modules: cohort + cache → bags."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from e2e_abmilx.bags import Bag, EpochSampler, RandomBags, Target, WholeSlides, check_stores, collate
from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cohort import (
    SPLITS,
    Case,
    CohortError,
    assign_folds,
    check_splits,
    encode_labels,
    match_slides,
    read_cohort,
)
from e2e_abmilx.synthetic import write_cohort

logger = logging.getLogger(__name__)


class SlideDataModule(LightningDataModule):
    """Bags of patches from cached slides.

    Training bags are random multi-scale draws; validation, test and prediction see every patch of the finest
    scale, in parts. Where ``slides`` is given, what is not cached yet is cached first.

    Args:
        cache: Folder of patch stores.
        labels: Label table (CSV); without one, every store is a case that can be predicted only.
        slides: Slides to cache first: a folder, a file or a CSV.
        columns: The table's names for ``slide``, ``case``, ``label``, ``time``, ``event``, ``split``, ``group``
            where they are not the usual ones.
        target: ``"label"``: classes; ``"survival"``: time and event.
        classes: The classes in order; by default those in the table, sorted.
        time_bins: Discrete times of a survival model: quantiles of the training events.
        fold: Test on this fold of ``folds`` made ones instead of the table's splits.
        folds: Number of folds, where ``fold`` is given.
        skip_missing: Go on without the cases whose slides are missing, instead of stopping.
        mpp: µm per pixel of each scale to cache.
        patch_size: Side of a patch to cache, pixels.
        assume_mpp: Level-0 µm per pixel of slides that state none.
        patches_per_bag: s, patches of a training bag.
        coarse_share: 1/r, share of them drawn from the coarser scales.
        batch_size: B, bags in a training batch.
        chunk_size: Patches encoded at once in evaluation.
        workers: Processes that read patches, and that cut slides.
        seed: Of draws, order and folds.
    """

    def __init__(
        self,
        cache: Path,
        labels: Path | None = None,
        *,
        slides: Path | None = None,
        columns: dict[str, str] | None = None,
        target: Literal["label", "survival"] = "label",
        classes: list[str] | None = None,
        time_bins: int = 4,
        fold: int | None = None,
        folds: int = 5,
        skip_missing: bool = False,
        mpp: tuple[float, ...] = (0.5, 1.0),
        patch_size: int = 256,
        assume_mpp: float | None = None,
        patches_per_bag: int = 512,
        coarse_share: float = 0.25,
        batch_size: int = 1,
        chunk_size: int = 512,
        workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {
            "patches_per_bag": patches_per_bag,
            "batch_size": batch_size,
            "chunk_size": chunk_size,
        }.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 <= coarse_share < 1:
            raise ValueError(
                f"coarse_share is {coarse_share}; it is a share of the bag and must lie in [0, 1)"
            )
        self.cache, self.labels, self.slides = Path(cache), labels, slides
        self.columns, self.target, self.class_names, self.time_bins = columns, target, classes, time_bins
        self.fold, self.folds, self.skip_missing = fold, folds, skip_missing
        self.mpp, self.patch_size, self.assume_mpp = mpp, patch_size, assume_mpp
        self.patches_per_bag, self.coarse_share = patches_per_bag, coarse_share
        self.batch_size, self.chunk_size = batch_size, chunk_size
        self.workers, self.seed = workers, seed
        self.cases: dict[str, list[Case]] = {}
        self.targets: dict[str, list[Target]] = {}
        #: The classes in order, or ``("0", …)`` for the time bins of a survival model; known after ``setup``.
        self.classes: tuple[str, ...] = ()

    def prepare_data(self) -> None:
        """Cache the slides that are not cached yet."""
        if self.slides is not None:
            cache_slides(
                self.slides,
                self.cache,
                mpp=self.mpp,
                patch_size=self.patch_size,
                assume_mpp=self.assume_mpp,
                workers=self.workers,
            )

    def setup(self, stage: str) -> None:
        """Read the cohort, check it against the cache and number its targets.

        Raises:
            CohortError: The table, its splits or its labels cannot be used.
            BagError: Stores cannot make bags together.
        """
        if self.cases:
            return
        cases = self._read_cases()
        check_stores(cases, self.cache)
        targets = self._number_targets(cases)
        for split in SPLITS:
            chosen = [index for index, case in enumerate(cases) if case.split == split]
            self.cases[split] = [cases[index] for index in chosen]
            self.targets[split] = [targets[index] for index in chosen]
        self.cases["all"], self.targets["all"] = cases, targets
        logger.info("cases: %s", ", ".join(f"{len(self.cases[split])} {split}" for split in SPLITS))

    def train_dataloader(self) -> DataLoader[Bag]:
        """Random bags, shuffled."""
        bags = RandomBags(
            self.cases["train"],
            self.targets["train"],
            self.cache,
            patches_per_bag=self.patches_per_bag,
            coarse_share=self.coarse_share,
            seed=self.seed,
        )
        sampler = EpochSampler(len(bags), seed=self.seed)
        return self._load(
            bags, batch_size=self.batch_size, sampler=sampler, drop_last=len(bags) > self.batch_size
        )

    def val_dataloader(self) -> DataLoader[Bag]:
        """Whole slides of the validation split."""
        return self._whole("val")

    def test_dataloader(self) -> DataLoader[Bag]:
        """Whole slides of the test split."""
        if not self.cases["test"]:
            raise CohortError(f"the test split of {self.labels} has no case; give some rows the split 'test'")
        return self._whole("test")

    def predict_dataloader(self) -> DataLoader[Bag]:
        """Whole slides of every case."""
        return self._whole("all")

    def _read_cases(self) -> list[Case]:
        stored = sorted(path.name.removesuffix(".zarr") for path in self.cache.glob("*.zarr"))
        if not stored:
            raise CohortError(
                f"{self.cache} holds no patch store; run `e2e-abmilx cache` first, or give data.slides"
            )
        if self.labels is None:
            return [Case(name, (name,)) for name in stored]
        cases = read_cohort(Path(self.labels), columns=self.columns)
        matched, complaints = match_slides(cases, stored, self.cache)
        if len(matched) < len(cases) and not self.skip_missing:
            raise CohortError(
                "\n  ".join([f"{len(cases) - len(matched)} of {len(cases)} cases lack slides:", *complaints])
                + "\ncorrect the table, cache the slides, or go on without them (skip_missing: true)"
            )
        for line in complaints:
            logger.warning("%s", line)
        if self.fold is not None:
            matched = assign_folds(matched, fold=self.fold, folds=self.folds, seed=self.seed)
        check_splits(matched)
        return matched

    def _number_targets(self, cases: Sequence[Case]) -> list[Target]:
        if self.labels is None:
            return [Target() for _ in cases]
        if self.target == "label":
            numbers, self.classes = encode_labels(cases, self.class_names)
            return [
                Target(number, case.time, case.event) for number, case in zip(numbers, cases, strict=True)
            ]
        unknown = [case.id for case in cases if math.isnan(case.time)]
        if unknown:
            raise CohortError(
                f"{len(unknown)} cases have no survival time, first {unknown[0]}; complete {self.labels}"
            )
        edges = self._time_edges([case for case in cases if case.split == "train"])
        self.classes = tuple(str(bin_number) for bin_number in range(self.time_bins))
        return [
            Target(int(np.searchsorted(edges, case.time, side="right")), case.time, case.event)
            for case in cases
        ]

    def _time_edges(self, train: Sequence[Case]) -> np.ndarray:
        """Inner edges of the time bins: quantiles of the training events' times."""
        events = [case.time for case in train if case.event]
        if len(events) < self.time_bins:
            raise CohortError(
                f"{len(events)} training events cannot make {self.time_bins} time bins; lower time_bins"
            )
        return np.quantile(events, np.arange(1, self.time_bins) / self.time_bins)

    def _whole(self, split: str) -> DataLoader[Bag]:
        slides = WholeSlides(self.cases[split], self.targets[split], self.cache, chunk_size=self.chunk_size)
        return self._load(slides, batch_size=1)

    def _load(self, bags: RandomBags | WholeSlides, **how: Any) -> DataLoader[Bag]:  # noqa: ANN401
        return DataLoader(
            bags,
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            **how,
        )


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
        coarse_share: Share of them drawn from the coarser scale.
        batch_size: Bags in a training batch.
        chunk_size: Patches encoded at once in evaluation.
        workers: Processes.
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
        coarse_share: float = 0.25,
        batch_size: int = 4,
        chunk_size: int = 256,
        workers: int = 2,
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
            coarse_share=coarse_share,
            batch_size=batch_size,
            chunk_size=chunk_size,
            workers=workers,
            seed=seed,
        )
        self.folder, self.num_slides, self.side = folder, num_slides, side

    def prepare_data(self) -> None:
        """Draw the slides that are not there yet, then cache them."""
        write_cohort(self.folder, slides=self.num_slides, side=self.side)
        super().prepare_data()
