"""Checks that task, data and trainer fit together, made before a stage of the trainer begins."""

import logging
import os
from collections.abc import Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks.coverage import Coverage

logger = logging.getLogger(__name__)

#: The splits that a stage of the trainer uses.
SPLITS_OF = {"fit": ("train", "val", "test"), "validate": ("val",), "test": ("test",)}


def check_target(task: str, wanted: str, given: str) -> None:
    """Refuse data whose target is not the one that the task learns from."""
    if given != wanted:
        raise InputError(
            f"{task} learns from the target {wanted} and the data give {given}; set"
            f" data.target to {wanted}, or take the task of {given}"
        )


def check_outputs(classes: Sequence[str], num_outputs: int) -> None:
    """Refuse another number of outputs than classes; no classes are accepted."""
    if classes and len(classes) != num_outputs:
        raise InputError(
            f"the data have {len(classes)} classes ({', '.join(classes)}) and the model {num_outputs} outputs;"
            f" set model.num_outputs to {len(classes)}, or name the classes (data.classes)"
        )


def check_width(encoder: nn.Module, num_features: int | None) -> None:
    """Refuse precomputed features of another width than the encoder states."""
    if isinstance(encoder, Precomputed) and num_features not in (None, encoder.num_features):
        raise InputError(
            f"the files have {num_features} features per patch and the encoder states {encoder.num_features}; set"
            f" model.encoder.num_features to {num_features}"
        )


def check_limits(trainer: Trainer) -> None:
    """Refuse limits that, with several processes, end one process within a case while others wait for it."""
    if trainer.world_size == 1 or getattr(trainer, "fast_dev_run", False):
        return
    for name in ("val", "test", "predict"):
        limit = getattr(trainer, f"limit_{name}_batches")
        if limit not in (0, 1.0) or (isinstance(limit, int) and limit):  # 1 is one batch, 1.0 is all of them
            raise InputError(
                f"trainer.limit_{name}_batches is {limit}, which ends in the middle of a case, and several processes"
                " would wait for each other; leave it out, or use one device (trainer.devices: 1)"
            )


def check_processes(trainer: Trainer) -> None:
    """Refuse a trainer that leaves out processes that torchrun or srun has started.

    Each would train a model of its own, and all would write into the same folder. Of a batch script of SLURM without
    srun, there is only one process, however many tasks the job may have.
    """
    names = {"torchrun": ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"), "srun": ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")}
    for launcher, (mark, size) in names.items():
        started = int(os.environ.get(size) or 1) if mark in os.environ else 1
        if started > 1 and started != trainer.num_nodes * trainer.num_devices:
            raise InputError(
                f"{launcher} started {started} processes, and the trainer is for {trainer.num_nodes * trainer.num_devices}:"
                f" trainer.num_nodes is {trainer.num_nodes}, with {trainer.num_devices} devices on each; set"
                " trainer.num_nodes to the number of machines and trainer.devices to the processes on each"
            )


@rank_zero_only
def warn_of_gaps(split: str, covered: Coverage, warned: set[str]) -> None:
    """Warn, once each, of metrics of a split that will be NaN, or means over fewer classes than there are.

    Warnings in ``warned`` were given before; new ones are added to it.
    """
    gaps = []
    for reason in dict.fromkeys(covered.undefined.values()):
        names = ", ".join(name for name, why in covered.undefined.items() if why == reason)
        gaps.append(f"the {split} split has no {names}: {reason}")
    gaps += [f"the {split} split has {note}" for note in covered.notes]
    for gap in gaps:
        if gap not in warned:
            logger.warning("%s", gap)
            warned.add(gap)
