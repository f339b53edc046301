"""Steps, validations and patch passes of a training."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.draws import AttentionDraw
from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.study.plan_cache import CachePlan
from e2e_abmilx.study.plan_cohort import PlannedCohort
from e2e_abmilx.study.plan_config import Config


class StepPlan(NamedTuple):
    """The work of a training, at most: it may stop earlier.

    Attributes:
        batches_per_epoch: Batches of each training process.
        steps_per_epoch: Optimizer steps.
        epochs: Number of epochs.
        steps: Optimizer steps in all.
        batches: Batches of each process in all.
        bag_patches: Patches of an average training bag, without padding.
        largest_bag: Patches of the largest training bag.
        patch_passes: Patches that all processes encode and learn from.
        validations: Number of validations.
        val_patches: Patches of a validation.
        test_patches: Patches of the test.
        draw_patches: Patches that are encoded to draw bags by attention, in all.
    """

    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    steps: int
    batches: int
    bag_patches: float
    largest_bag: int
    patch_passes: int
    validations: int
    val_patches: int
    test_patches: int
    draw_patches: int = 0

    @property
    def eval_patches(self) -> int:
        """Patches that are encoded without learning, in all."""
        return self.validations * self.val_patches + self.test_patches + self.draw_patches


def plan_steps(config: Config, cohort: PlannedCohort, cache: CachePlan) -> StepPlan:
    """Count the work of a training.

    Raises:
        InputError: The training has no end, or no batch.
    """
    trainer, data, processes = config.trainer, config.data, config.processes
    draws = len(data.training_sampler(num_replicas=processes))
    whole = draws // data.batch_size if draws > data.batch_size else 1  # a smaller last batch is left out
    batches = _limit(whole, trainer["limit_train_batches"])
    if not batches:
        raise InputError("trainer.limit_train_batches leaves no batch to train on; raise it or leave it out")
    steps = math.ceil(batches / trainer["accumulate_grad_batches"])
    epochs, total = _length(trainer, steps)
    all_batches = min(total * trainer["accumulate_grad_batches"], epochs * batches)
    bags = [_bag_patches(config, case, cache) for case in cohort.cases["train"]]
    largest = max(bags)
    per_bag = float(np.mean(bags))
    follows = isinstance(data, SlideDataModule) and isinstance(data.draw, AttentionDraw)
    scales = isinstance(data, SlideDataModule) and data.eval_scales == "all"
    return StepPlan(
        batches,
        steps,
        epochs,
        total,
        all_batches,
        per_bag,
        largest,
        round(all_batches * data.batch_size * processes * per_bag),
        _validations(trainer, batches, total // steps, all_batches) if cohort.cases["val"] else 0,
        _count(cohort.cases["val"], cache, all_scales=scales),
        _count(cohort.cases["test"], cache, all_scales=scales),
        (epochs - 1) * _count(cohort.cases["train"], cache, all_scales=True) if follows else 0,
    )


def _limit(batches: int, limit: float | None) -> int:
    """Return a number of batches after the trainer's limit: a fraction, or a number, which may be 2.0 for 2."""
    if limit is None:
        return batches
    is_number = isinstance(limit, int) or limit > 1
    return min(batches, int(limit)) if is_number else int(batches * limit)


def _length(trainer: dict[str, Any], steps_per_epoch: int) -> tuple[int, int]:
    """Return epochs and optimizer steps; Lightning trains for 1,000 epochs if nothing limits it."""
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if epochs is None:
        epochs = 1000 if steps < 0 else -1
    if epochs < 0 and steps < 0:
        raise InputError(
            "trainer.max_epochs is -1 and trainer.max_steps too, so the training has no end; set one of them"
        )
    by_epochs = math.inf if epochs < 0 else epochs * steps_per_epoch
    total = int(min(by_epochs, math.inf if steps < 0 else steps))
    return math.ceil(total / steps_per_epoch), total


def _validations(trainer: dict[str, Any], batches: int, whole_epochs: int, all_batches: int) -> int:
    """Return the number of validations in a whole training; a last epoch that is cut short has none."""
    every, interval = trainer["check_val_every_n_epoch"], trainer["val_check_interval"]
    if trainer["limit_val_batches"] == 0:
        return 0
    if every is None and isinstance(interval, int):
        return all_batches // interval  # counted over epochs
    interval = 1.0 if interval is None else interval
    between = interval if isinstance(interval, int) else max(1, int(batches * interval))
    return int(batches // between) * (whole_epochs // (every or 1))


def _bag_patches(config: Config, case: Case, cache: CachePlan) -> int:
    """Return the patches of a training bag of a case."""
    data = config.data
    scales = _by_scale(cache.patches.get(slide, ()) for slide in case.slides)
    if isinstance(data, FeatureDataModule):
        return min(sum(scales), data.max_patches or sum(scales))
    size = data.patches_per_bag if isinstance(data, SlideDataModule) else 1
    if not scales or not isinstance(data, SlideDataModule) or data.padding == "duplicate":
        return size
    coarse = int(size * data.coarse_fraction) if len(scales) > 1 else 0
    return min(size - coarse, scales[0]) + min(coarse, sum(scales[1:]))


def _count(cases: Sequence[Case], cache: CachePlan, *, all_scales: bool) -> int:
    counts = _by_scale(cache.patches.get(slide, ()) for case in cases for slide in case.slides)
    return sum(counts) if all_scales else sum(counts[:1])


def _by_scale(slides: Iterable[tuple[int, ...]]) -> list[int]:
    """Return the sum over slides for each scale."""
    known = [counts for counts in slides if counts]
    return [sum(column) for column in zip(*known, strict=True)]
