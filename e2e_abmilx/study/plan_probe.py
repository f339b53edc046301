"""Seconds per step and patches per second, measured by a few real steps on this machine."""

import copy
import math
import time
import warnings
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.study.plan_cache import CachePlan
from e2e_abmilx.study.plan_cohort import PlannedCohort
from e2e_abmilx.study.plan_config import Config
from e2e_abmilx.study.plan_memory import in_memory, make_random_bag, one_bag
from e2e_abmilx.study.plan_steps import StepPlan

#: The clock; ``benchmarks/plan.py`` sets that of the process, which other processes do not disturb.
clock = time.perf_counter

_WARM_UP = 2  # batches
_BATCHES = 12  # batches at most, after the warm-up
_SECONDS = 30.0  # and no longer, once there are three
_EVAL_CASES = 12


class Probe(NamedTuple):
    """What a machine does.

    Attributes:
        step_s: Seconds per training batch, with reading.
        eval_rate: Patches that evaluation encodes per second; NaN without patches.
        model_rate: Patches per second that training takes, without waiting for the loaders.
        decode_rate: Patches per second that one worker reads; NaN without a complete cache.
        real: Whether the patches are those of the cohort; otherwise random pixels, and no file is read.
    """

    step_s: float
    eval_rate: float
    model_rate: float
    decode_rate: float
    real: bool

    def hours(self, steps: StepPlan) -> float:
        """Return the hours of training, validation and test."""
        evaluated = steps.eval_patches / self.eval_rate if steps.eval_patches else 0.0
        return (steps.batches * self.step_s + evaluated) / 3600


def probe_machine(config: Config, cohort: PlannedCohort, cache: CachePlan, steps: StepPlan) -> Probe:
    """Run a few steps of the config with this machine's default device; the task itself is not changed."""
    data, real = config.data, cache.is_complete and cohort.known
    train: DataLoader[Bag]
    if real:
        train = data.train_dataloader()
        train.before_pass = None  # the first epoch of an AttentionDraw is drawn uniformly
        held_out: DataLoader[Bag] = _some_cases(data)
    else:
        bag = make_random_bag(config, cohort, steps.largest_bag, cache.side)
        train, held_out = in_memory([bag] * (_WARM_UP + _BATCHES)), in_memory([one_bag(bag)] * _EVAL_CASES)
    pace, evaluation = _Pace(), _Rate()
    most = math.ceil((_WARM_UP + _BATCHES) / config.trainer["accumulate_grad_batches"])
    trainer = config.make_trainer([pace], max_steps=most, max_epochs=-1, min_epochs=0, limit_val_batches=0)
    task = copy.deepcopy(config.task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they concern a few steps only, and the fit gives them again
        trainer.fit(task, train)
        config.make_trainer([evaluation]).validate(task, held_out, verbose=False)
    step_s, wait_s, patches = np.mean(pace.steps, axis=0)
    per_step = 1.0 if real else steps.bag_patches * data.batch_size / patches
    decode = _time_reading(data) if real else math.nan
    return Probe(step_s * per_step, evaluation.value, patches / max(step_s - wait_s, 1e-9), decode, real)


def _some_cases(data: BagDataModule) -> DataLoader[Bag]:
    """Return the loader of the first cases of the validation split, or without one of the training split."""
    kept = data.cases["val"], data.targets["val"]
    split = "val" if kept[0] else "train"
    data.cases["val"], data.targets["val"] = data.cases[split][:_EVAL_CASES], data.targets[split][:_EVAL_CASES]
    try:
        return data.val_dataloader()
    finally:
        data.cases["val"], data.targets["val"] = kept


def _time_reading(data: BagDataModule) -> float:
    """Return the patches that one process reads per second."""
    bags, started, patches = data.random_bags("train"), clock(), 0
    for index in range(min(len(data.cases["train"]), _BATCHES)):
        patches += int(bags[index].mask.sum())
        if clock() - started > _SECONDS / 10:
            break
    return patches / (clock() - started)


class _Pace(Callback):
    """Note seconds, seconds of waiting and patches of each batch after the warm-up."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, int]] = []
        self._before: tuple[float, float] | None = None
        self._batches = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._batches > _WARM_UP:
            self._before = clock(), 0.0  # the time between epochs is not that of a batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Bag, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        waited = getattr(getattr(trainer.train_dataloader, "clock", None), "waited_s", 0.0)
        now = clock(), waited
        self._batches += 1
        if self._before is not None and self._batches > _WARM_UP:
            seconds, waiting = now[0] - self._before[0], now[1] - self._before[1]
            self.steps.append((seconds, waiting, int(batch.mask.sum())))
        self._before = now
        if len(self.steps) >= 3 and sum(step[0] for step in self.steps) > _SECONDS:
            trainer.should_stop = True


class _Rate(Callback):
    """Measure the patches that evaluation encodes per second, after the first part."""

    value = math.nan

    def __init__(self) -> None:
        self._patches = -1

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Bag, *place: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        if self._patches < 0:
            self._patches, self._started = 0, clock()
            return
        self._patches += batch.mask.numel()
        self.value = self._patches / (clock() - self._started)
