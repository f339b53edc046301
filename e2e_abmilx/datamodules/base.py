"""The base of all data modules: cohort, targets, loaders, and the state of interrupted training."""

import logging
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import Dataset

from e2e_abmilx.cohort import SPLITS, Case, CohortError, CohortPlan, spell_classes, write_splits
from e2e_abmilx.cohort.targets import NumberedTargets
from e2e_abmilx.data.bag import Bag, BagSource, Target, collate
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.inputs import ModelInput
from e2e_abmilx.data.loaders import BagLoader, Padded, WorkerStart, plan_workers, recommended_workers, start_method
from e2e_abmilx.data.samplers import CaseSampler, EpochSampler, Progress
from e2e_abmilx.data.seen_cases import Marks, SeenCases
from e2e_abmilx.data.transfer import AsyncCopy, decode_patches
from e2e_abmilx.datamodules.class_ratio import check_ratio, draws_per_case
from e2e_abmilx.store.locations import Location

logger = logging.getLogger(__name__)


class BagDataModule(LightningDataModule):
    """Bags of a cohort, for training and evaluation.

    Args:
        labels: Label table (CSV), as in :class:`~e2e_abmilx.cohort.CohortPlan`.
        balanced: Draw all classes equally often in training; not for multi-label and regression cohorts.
        oversample: How often to draw each case of a class in a training epoch, by class, where this is not once:
            ``{ILC: 2}`` is what a label table that lists those cases twice would mean. Each draw is another bag, and
            the epoch is longer. For target ``"label"``, without ``balanced``.
        batch_size: B, bags per training batch and process.
        num_workers: Processes that read bags; by default a number that suits the machine.
        seed: Seed of draws and their order; splits follow ``split_seed``.
        **cohort: All other arguments of :class:`~e2e_abmilx.cohort.CohortPlan`.
    """

    def __init__(
        self,
        labels: Path | None = None,
        *,
        balanced: bool = False,
        oversample: dict[str, int] | None = None,
        batch_size: int = 1,
        num_workers: int | None = None,
        seed: int = 0,
        **cohort: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it counts bags and must be at least 1")
        #: Settings of the cohort.
        self.plan = CohortPlan(labels, **cohort)
        self.oversample = dict(zip(spell_classes(list(oversample or {})), (oversample or {}).values(), strict=True))
        check_ratio(self.plan.target, balanced=balanced, oversample=self.oversample)
        self.balanced, self.batch_size, self.num_workers, self.seed = balanced, batch_size, num_workers, seed
        self.cases: dict[str, list[Case]] = {}
        self.targets: dict[str, list[Target]] = {}
        #: The classes in order, or ``("0", …)`` for the time bins of a survival model; known after ``setup``.
        self.classes: tuple[str, ...] = ()
        #: Inner edges of the time bins of a survival model, months; known after ``setup``.
        self.time_edges: tuple[float, ...] = ()
        self._progress: Progress | None = None
        self._copy = AsyncCopy()
        self._stage = ""
        #: All cases, before ``select_on_test`` joins splits; known after ``setup``.
        self.read_cases: list[Case] = []
        self._unnumbered: CohortError | None = None
        self._obeyed: tuple[InputContract | None, str] = None, ""
        #: Input contract of the model to evaluate; by default that of the trainer's model or checkpoint.
        self.contract: InputContract | None = None

    @abstractmethod
    def available(self) -> tuple[Location, list[str]]:
        """Return the folder that bags are made from and the slides in it."""

    @abstractmethod
    def check(self, cases: Sequence[Case]) -> None:
        """Refuse files that cannot be used in the same bags."""

    @abstractmethod
    def random_bags(self, split: str) -> Dataset[Bag]:
        """Return the training bags of a split, indexed by :class:`~e2e_abmilx.data.samplers.Draw`."""

    @abstractmethod
    def whole_bags(self, split: str) -> tuple[Dataset[Bag], Sequence[int]]:
        """Return all patches of a split, for evaluation, and the case of each item."""

    def describe_input(self) -> ModelInput | None:
        """Return what the bags hold, for the input contract of a model; None if it is not known."""
        return None

    def slide_marks(self, cases: Sequence[Case]) -> Marks:
        """Return a mark of each slide that stays the same if the slide is renamed; empty if there are none."""
        return {}

    def setup(self, stage: str) -> None:
        """Read the cohort, match it with the slides and number its targets.

        Outside ``fit``, the input contract of the trained model decides: see :meth:`obey`.

        Raises:
            CohortError: The table, its splits or its labels cannot be used.
            BagError: Files cannot be used in the same bags.
            ContractError: The model was trained on other data.
        """
        if not (self.cases.get("train") or (self.cases and stage == self._stage)):
            self._read_cohort(stage)
        self._stage = stage
        contract = None if stage == "fit" else self.contract or _contract_of(self.trainer)
        try:
            self.obey(contract)
        except CohortError as error:
            if stage == "fit" or contract is not None or self.trainer is None:
                raise
            self._unnumbered = error  # a checkpoint, which Lightning restores later, may bring the contract

    def obey(self, contract: InputContract | None) -> None:
        """Number the targets, with the classes and time bins of a trained model if its contract is given.

        Raises:
            CohortError: A target is missing or cannot be used.
            ContractError: The data do not fit the model, or the model has seen cases of the test split.
        """
        if contract is not None and (contract, self._stage) == self._obeyed:
            return
        self._obeyed = None, ""  # a refusal must not count
        known = None
        if contract is not None:
            if self.plan.labels is not None:
                contract.check_target(self.plan.target, self.plan.class_names)
            contract.check_input(self.describe_input())
            self._refuse_seen(contract.seen)
            known = NumberedTargets([], contract.classes, contract.time_edges)
        numbered = self.plan.number(self.read_cases, self._stage, known)
        self.classes, self.time_edges, self._unnumbered = numbered.classes, numbered.edges, None
        pairs = zip(numbered.numbers, self.read_cases, strict=True)
        target_of = {case.id: Target(number, case.time, case.event) for number, case in pairs}
        self.targets = {split: [target_of[case.id] for case in cases] for split, cases in self.cases.items()}
        self._obeyed = contract, self._stage

    def _read_cohort(self, stage: str) -> None:
        folder, slides = self.available()
        self.read_cases = self.plan.read(slides, folder, stage)
        self.check(self.read_cases)
        cases = self.plan.join_held_out(self.read_cases)
        self.cases = {split: [case for case in cases if case.split == split] for split in SPLITS}
        if self.plan.select_on_test:
            self.cases["val"] = self.cases["test"]
        self.cases["all"] = cases
        logger.info("cases: %s", ", ".join(f"{len(self.cases[split])} {split}" for split in SPLITS))

    def _refuse_seen(self, seen: SeenCases | None) -> None:
        """Refuse to test a model on cases that it was trained on, or on made folds of an external cohort."""
        if seen is None or self._stage != "test" or self.plan.select_on_test:
            return
        found = seen.find_names(self.cases["test"], self.slide_marks)
        if found:
            raise ContractError(
                f"the model was trained or validated on {len(found)} of the {len(self.cases['test'])} test cases, first"
                f" {next(iter(found))} ({next(iter(found.values()))}); test it on the split or fold that it was not trained on"
            )
        makes_folds = self.plan.fold is not None and self.plan.splits is None
        if makes_folds and self.cases["train"] and not seen.find_names(self.cases["train"], self.slide_marks):
            raise ContractError(
                f"data.fold {self.plan.fold} would test one fold of {self.plan.labels} only, which has none of the model's"
                " training cases; set data.fold to null to test all its cases, and ignore folds of its own with"
                " columns: {fold: null}"
            )

    def train_dataloader(self) -> BagLoader:
        """Return the shuffled bags of the training split, without an incomplete last batch."""
        sampler = self.training_sampler(progress=self._progress, **self._rank())
        bags = self.random_bags("train")
        return BagLoader(
            bags,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=len(sampler) > self.batch_size,
            **self._reading(bags, self.batch_size),
        )

    def training_sampler(self, **how: Any) -> EpochSampler:  # noqa: ANN401
        """Return the sampler of the training split; ``how`` are further arguments of :class:`EpochSampler`."""
        labels = [target.label for target in self.targets["train"] if isinstance(target.label, int)]
        return EpochSampler(
            len(self.cases["train"]),
            seed=self.seed,
            classes=labels if self.balanced else None,
            times=draws_per_case(labels, self.classes, self.oversample) if self.oversample else None,
            **how,
        )

    def val_dataloader(self) -> BagLoader:
        """Return all patches of the validation split."""
        return self._evaluate("val")

    def test_dataloader(self) -> BagLoader:
        """Return all patches of the test split."""
        if not self.cases["test"]:
            raise CohortError(f"the test split of {self.plan.labels} has no case; give some rows the split 'test'")
        return self._evaluate("test")

    def predict_dataloader(self) -> BagLoader:
        """Return all patches of all cases."""
        return self._evaluate("all")

    def write_splits(self, path: Path) -> None:
        """Write the split of each case, in a form that the option ``splits`` reads."""
        write_splits(self.cases["all"], path)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress of training; this suffices, since bags are functions of (seed, epoch, case)."""
        if self.trainer is None:
            return {}
        loop = self.trainer.fit_loop
        batches: Any = loop.epoch_loop.batch_progress.current  # its type lacks half of its fields
        last_begun = loop.epoch_progress.current.ready - 1  # after the last epoch, the trainer's number is one higher
        return Progress(last_begun, batches.processed * self.batch_size)._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume training from a state."""
        self._progress = Progress(**state_dict) if state_dict else None
        # Lightning expects loaders to keep their own state
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")

    def transfer_batch_to_device(self, batch: Bag, device: torch.device, dataloader_idx: int) -> Bag:
        """Move a batch to the device, which decodes JPEG streams and computes during the copy."""
        batch = decode_patches(batch, device)

        def copy() -> Bag:
            moved: Bag = super(BagDataModule, self).transfer_batch_to_device(batch, device, dataloader_idx)
            return moved

        return self._copy(copy, device) if device.type == "cuda" else copy()

    def _evaluate(self, split: str) -> BagLoader:
        if self._unnumbered is not None:
            raise self._unnumbered
        bags, case_of = self.whole_bags(split)
        sampler = CaseSampler(case_of, **self._rank())
        loader = BagLoader(Padded(bags), batch_size=1, sampler=sampler, **self._reading(bags, 1))
        loader.classes = self.classes
        return loader

    def _rank(self) -> dict[str, int]:
        """Return the rank of this process and the number of processes, for a sampler."""
        if self.trainer is None:
            return {}
        return {"rank": self.trainer.global_rank, "num_replicas": self.trainer.world_size}

    def _reading(self, bags: Dataset[Bag], batch_size: int) -> dict[str, Any]:
        """Return the arguments of a loader that concern reading."""
        processes = self.trainer.num_devices if self.trainer else 1
        wanted = recommended_workers(processes) if self.num_workers is None else self.num_workers
        batch_bytes = bags.largest_bytes * batch_size if isinstance(bags, BagSource) else 0
        workers, prefetch = plan_workers(wanted, batch_bytes, processes=processes)
        if workers < wanted:
            logger.info(
                "%d of %d workers are used: a batch takes up to %.0f MB, and prefetched batches must fit into memory",
                workers,
                wanted,
                batch_bytes / 1e6,
            )
        return {
            "collate_fn": collate,
            "num_workers": workers,
            "multiprocessing_context": start_method(bags) if workers else None,
            "prefetch_factor": prefetch if workers else None,
            "persistent_workers": workers > 0 and not (isinstance(bags, BagSource) and bags.follows_model),
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": WorkerStart(),
        }


def _contract_of(trainer: Trainer | None) -> InputContract | None:
    """Return the contract of the trainer's model, which has one if it was trained or loaded from a checkpoint."""
    return getattr(getattr(trainer, "lightning_module", None), "contract", None)
