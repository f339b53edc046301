"""What data modules share: cohort, splits, targets, loaders."""

import logging
import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from e2e_abmilx.cohort import (
    SPLITS,
    Case,
    CohortError,
    SplitPlan,
    Stratum,
    check_splits,
    encode_labels,
    encode_multi_labels,
    match_slides,
    read_cohort,
    spell_classes,
    time_bins,
    time_edges,
    write_splits,
)
from e2e_abmilx.data.bag import Bag, BagSource, Target, collate
from e2e_abmilx.data.jpegs import Jpegs
from e2e_abmilx.data.loaders import BagLoader, Padded, plan_readers, recommended_workers
from e2e_abmilx.data.samplers import CaseSampler, EpochSampler, Progress

logger = logging.getLogger(__name__)

_STRATA: dict[str, Stratum] = {"label": "label", "multi_label": "labels", "survival": "event"}


class BagDataModule(LightningDataModule):
    """What bags of patches and bags of features share: the cohort, its splits and targets, the loaders.

    Args:
        labels: Label table (CSV); without one, every slide is a case that can be predicted only.
        columns: The table's names for ``slide``, ``case``, ``patient``, ``label``, ``time``, ``days``, ``event``,
            ``censorship``, ``split``, ``fold``, ``group`` where they are not the usual ones; null for one that is not
            to be read.
        slide_table: A second table that says which slides a case has, where the labels are one row a case.
        target: ``"label"``: the class; ``"multi_label"``: which of several classes, each in a column of its own;
            ``"survival"``: time and event.
        classes: The classes in order, in quotes where YAML would take them for something else (``"no"``); by default
            those in the table, sorted. For ``"multi_label"`` the table's columns of 1, 0 or, where it is unknown,
            nothing.
        time_bins: Discrete times of a survival model: quantiles of the events.
        bins: Whose events: those of the ``"train"`` cases, or of the whole ``"cohort"``, as the authors do.
        splits: A file of splits, or a folder of one file a fold, instead of the table's.
        fold: Which fold to test on: of ``splits``, of the table's column of folds, or of ``folds`` made ones.
        folds: Number of folds, where ``fold`` is given and ``splits`` is not.
        by_site: Never part the cases of a site of TCGA, which their barcodes tell.
        val_fraction: Share of the training cases that validate, where no split says which do.
        skip_missing: Go on without the cases whose slides are missing, instead of stopping.
        select_on_test: Validate on the validation and test cases together, and test on the same: the authors'
            protocol, whose figures are too good. Only for comparisons with theirs.
        balanced: Draw all classes equally often in training; not for several labels a case.
        batch_size: B, bags in a training batch of each process.
        num_workers: Processes that read bags; by default what suits this machine.
        split_seed: Seed of made folds and of the validation cases that are held out; apart from ``seed``, so that weights
            and splits can vary independently.
        seed: Seed of draws and order.
    """

    def __init__(
        self,
        labels: Path | None = None,
        *,
        columns: dict[str, str | None] | None = None,
        slide_table: Path | None = None,
        target: Literal["label", "multi_label", "survival"] = "label",
        classes: list[str | int | float | bool | None] | None = None,
        time_bins: int = 4,
        bins: Literal["train", "cohort"] = "train",
        splits: Path | None = None,
        fold: int | None = None,
        folds: int = 5,
        by_site: bool = False,
        val_fraction: float = 0.125,
        skip_missing: bool = False,
        select_on_test: bool = False,
        balanced: bool = False,
        batch_size: int = 1,
        num_workers: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it counts bags and must be at least 1")
        names = None if classes is None else spell_classes(classes)
        if target == "multi_label":
            _check_multi_label(names or [], balanced=balanced)
        self.labels, self.columns, self.slide_table = labels, columns, slide_table
        self.target, self.class_names, self.time_bins, self.bins = target, names, time_bins, bins
        self.splits, self.fold, self.folds, self.by_site = splits, fold, folds, by_site
        self.val_fraction, self.skip_missing = val_fraction, skip_missing
        self.select_on_test, self.balanced = select_on_test, balanced
        self.batch_size, self.num_workers = batch_size, num_workers
        self.split_seed, self.seed = split_seed, seed
        self.cases: dict[str, list[Case]] = {}
        self.targets: dict[str, list[Target]] = {}
        #: The classes in order, or ``("0", …)`` for the time bins of a survival model; known after ``setup``.
        self.classes: tuple[str, ...] = ()
        #: Inner edges of the time bins of a survival model, months; known after ``setup``.
        self.time_edges: tuple[float, ...] = ()
        self._progress: Progress | None = None
        self._copies: torch.cuda.Stream | None = None
        self._stage = ""

    @abstractmethod
    def available(self) -> tuple[Path, list[str]]:
        """Return the folder that bags are made from and the slides in it."""

    @abstractmethod
    def check(self, cases: Sequence[Case]) -> None:
        """Refuse files that cannot make bags together."""

    @abstractmethod
    def random_bags(self, split: str) -> Dataset[Bag]:
        """Return the bags of a split as training sees them, asked for by :class:`~e2e_abmilx.data.samplers.Draw`."""

    @abstractmethod
    def whole_bags(self, split: str) -> tuple[Dataset[Bag], Sequence[int]]:
        """Return everything of a split, as evaluation sees it, and which case each item is of."""

    def setup(self, stage: str) -> None:
        """Read the cohort, match it with the slides and number its targets.

        Raises:
            CohortError: The table, its splits or its labels cannot be used.
            BagError: Files cannot make bags together.
        """
        if self.cases.get("train") or (self.cases and stage == self._stage):
            return
        self._stage = stage  # a table without splits is another thing to each stage
        cases = self._read_cases(stage)
        self.check(cases)
        targets = self._number_targets(cases)
        if self.select_on_test:
            logger.warning(
                "select_on_test: checkpoints are chosen on the test cases, so that the test tells how well that went and"
                " not how the model does on new cases; do not report it as a test"
            )
            cases = [case if case.split == "train" else case._replace(split="test") for case in cases]
        for split in SPLITS:
            chosen = [index for index, case in enumerate(cases) if case.split == split]
            self.cases[split] = [cases[index] for index in chosen]
            self.targets[split] = [targets[index] for index in chosen]
        if self.select_on_test:
            self.cases["val"], self.targets["val"] = self.cases["test"], self.targets["test"]
        self.cases["all"], self.targets["all"] = cases, targets
        logger.info("cases: %s", ", ".join(f"{len(self.cases[split])} {split}" for split in SPLITS))

    def train_dataloader(self) -> BagLoader:
        """Bags of the training split, shuffled; a last smaller batch is left out."""
        size = len(self.cases["train"])
        labels = [target.label for target in self.targets["train"] if isinstance(target.label, int)]
        sampler = EpochSampler(
            size,
            seed=self.seed,
            classes=labels if self.balanced else None,
            progress=self._progress,
            **self._share(),
        )
        bags = self.random_bags("train")
        return BagLoader(
            bags,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=len(sampler) > self.batch_size,
            **self._reading(bags, self.batch_size),
        )

    def val_dataloader(self) -> BagLoader:
        """Everything of the validation split."""
        return self._evaluate("val")

    def test_dataloader(self) -> BagLoader:
        """Everything of the test split."""
        if not self.cases["test"]:
            raise CohortError(f"the test split of {self.labels} has no case; give some rows the split 'test'")
        return self._evaluate("test")

    def predict_dataloader(self) -> BagLoader:
        """Everything of every case."""
        return self._evaluate("all")

    def state_dict(self) -> dict[str, Any]:
        """How far the training is: bags are functions of (seed, epoch, case), so there is no more to remember."""
        if self.trainer is None:
            return {}
        loop = self.trainer.fit_loop
        batches: Any = loop.epoch_loop.batch_progress.current  # its type knows half of its fields
        begun_last = loop.epoch_progress.current.ready - 1  # after the last epoch, the trainer's is one more
        return Progress(begun_last, batches.processed * self.batch_size)._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._progress = Progress(**state_dict) if state_dict else None
        # Lightning looks for a loader that keeps its own state
        warnings.filterwarnings(
            "ignore", message="You're resuming from a checkpoint that ended before the epoch"
        )

    def transfer_batch_to_device(self, batch: Bag, device: torch.device, dataloader_idx: int) -> Bag:
        """Move a batch; JPEG streams are decoded on the device."""
        if isinstance(batch.patches, Jpegs):
            pixels = batch.patches.decode(device)
            patches = pixels.new_zeros(batch.mask.numel(), *pixels.shape[1:])
            patches[batch.positions().to(device)] = pixels
            batch = batch._replace(patches=patches.view(*batch.mask.shape, *pixels.shape[1:]))
        if device.type != "cuda":
            moved: Bag = super().transfer_batch_to_device(batch, device, dataloader_idx)
            return moved
        return self._copy_aside(batch, device)

    def _copy_aside(self, batch: Bag, device: torch.device) -> Bag:
        """Copy a batch while the device computes: on a stream of its own, which what is queued next waits for."""
        if self._copies is None or self._copies.device != device:
            self._copies = torch.cuda.Stream(device)
        with torch.cuda.stream(self._copies):
            moved: Bag = super().transfer_batch_to_device(batch, device, 0)
        current = torch.cuda.current_stream(device)
        current.wait_stream(self._copies)
        for value in moved:
            if isinstance(value, torch.Tensor):
                value.record_stream(current)  # or its memory would be free for the next copy too early
        return moved

    def _evaluate(self, split: str) -> BagLoader:
        bags, case_of = self.whole_bags(split)
        sampler = CaseSampler(case_of, **self._share())
        return BagLoader(Padded(bags), batch_size=1, sampler=sampler, **self._reading(bags, 1))

    def _share(self) -> dict[str, int]:
        """Which of how many processes this one is."""
        if self.trainer is None:
            return {}
        return {"rank": self.trainer.global_rank, "num_replicas": self.trainer.world_size}

    def _reading(self, bags: Dataset[Bag], batch_size: int) -> dict[str, Any]:
        """How loaders read."""
        processes = self.trainer.num_devices if self.trainer else 1
        wanted = recommended_workers(processes) if self.num_workers is None else self.num_workers
        batch_bytes = bags.largest_bytes * batch_size if isinstance(bags, BagSource) else 0
        workers, ahead = plan_readers(wanted, batch_bytes, processes=processes)
        if workers < wanted:
            logger.info(
                "%d of %d readers: a batch has up to %.0f MB, and those on their way may take no more memory",
                workers,
                wanted,
                batch_bytes / 1e6,
            )
        return {
            "collate_fn": collate,
            "num_workers": workers,
            "prefetch_factor": ahead if workers else None,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }

    def _read_cases(self, stage: str) -> list[Case]:
        folder, slides = self.available()
        if self.labels is None:
            if stage != "predict":
                raise CohortError(
                    "data.labels is not given; without a label table slides can only be predicted"
                )
            return [Case(name, (name,)) for name in slides]
        cases = read_cohort(
            Path(self.labels),
            columns=self.columns,
            label_columns=(self.class_names or []) if self.target == "multi_label" else [],
            slide_table=self.slide_table,
            target=self.target,
        )
        cases = self._split(cases, stage)
        matched, complaints = match_slides(cases, slides, folder)
        if len(matched) < len(cases) and not self.skip_missing:
            raise CohortError(
                "\n  ".join([f"{len(cases) - len(matched)} of {len(cases)} cases lack slides:", *complaints])
                + "\ncorrect the table, add the slides, or go on without those cases (data.skip_missing: true)"
            )
        for line in complaints:
            logger.warning("%s", line)
        if stage == "fit":
            check_splits(matched, needed=("train",) if self.select_on_test else ("train", "val"))
        return matched

    def _split(self, cases: list[Case], stage: str) -> list[Case]:
        """Settle the splits of all cases, those without slides too: a missing slide must not move the others."""
        plan = SplitPlan(
            file=self.splits,
            fold=self.fold,
            folds=self.folds,
            by_site=self.by_site,
            val_fraction=None if self.select_on_test else self.val_fraction,
            seed=self.split_seed,
            stratify_by=_STRATA[self.target],
        )
        return plan.settle(cases, stage)

    def write_splits(self, path: Path) -> None:
        """Write which case is in which split, in the form that ``splits`` reads."""
        write_splits(self.cases["all"], path)

    def _number_targets(self, cases: Sequence[Case]) -> list[Target]:
        if self.labels is None:
            return [Target() for _ in cases]
        numbers = self._number_labels(cases)
        return [Target(number, case.time, case.event) for number, case in zip(numbers, cases, strict=True)]

    def _number_labels(self, cases: Sequence[Case]) -> Sequence[int | tuple[int, ...]]:
        """The class, the labels or the time bin of each case."""
        if self.target == "label":
            numbers, self.classes = encode_labels(cases, self.class_names)
            return numbers
        if self.target == "multi_label":
            self.classes = tuple(self.class_names or ())
            return encode_multi_labels(cases, self.classes)
        unknown = [case.id for case in cases if math.isnan(case.time)]
        if unknown:
            raise CohortError(
                f"{len(unknown)} cases have no survival time, first {unknown[0]}; complete {self.labels}"
            )
        if self.bins == "cohort":
            logger.warning(
                "bins: the time bins know the events of the test cases; right only to repeat others' work"
            )
        edges = time_edges(cases, self.time_bins, bins=self.bins)
        self.time_edges = tuple(map(float, edges))
        self.classes = tuple(str(number) for number in range(self.time_bins))
        bins: list[int] = time_bins([case.time for case in cases], edges).tolist()
        return bins


def _check_multi_label(classes: Sequence[str], *, balanced: bool) -> None:
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(
            f"classes is {list(classes)} for target multi_label; name the columns of the table that hold 1 or 0, each once,"
            " such as data.classes: [ER, PR]"
        )
    if balanced:
        raise ValueError(
            "balanced draws classes equally often, and a case of target multi_label has several; leave it out, or weigh"
            " rare classes in the loss (MaskedBCE, positive_weight)"
        )
