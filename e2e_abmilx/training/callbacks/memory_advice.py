"""What to do when the device's memory is not enough."""

import logging

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.tasks import BagTask

logger = logging.getLogger(__name__)


class MemoryAdvice(Callback):
    """Name, when memory runs out, the two settings that help, and what they are."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Look whether it is about memory."""
        if isinstance(pl_module, BagTask) and _is_about_memory(exception):
            logger.error("%s", advice(pl_module, training=trainer.training))


def advice(task: BagTask, *, training: bool) -> str:
    """What to change.

    Args:
        task: Its settings are named.
        training: Whether it happened in training, and not in evaluation.
    """
    if not training:
        return (
            "out of memory in evaluation, which holds one part of a slide at a time: lower data.eval_chunk_size,"
            " or take half the precision (trainer.precision: bf16-mixed)"
        )
    if not task.gradient_checkpointing:
        return (
            "out of memory in training: set model.gradient_checkpointing to true (now false), which keeps no activations and changes"
            f" no result, and then lower model.train_chunk_size (now {task.train_chunk_size} patches)"
        )
    return (
        f"out of memory in training: lower model.train_chunk_size (now {task.train_chunk_size} patches, with model.gradient_checkpointing"
        " already true); if one chunk is small already, lower data.patches_per_bag or data.batch_size"
    )


def _is_about_memory(exception: BaseException) -> bool:
    on_cpu = isinstance(exception, RuntimeError) and "can't allocate memory" in str(exception)
    return on_cpu or isinstance(exception, (torch.OutOfMemoryError, MemoryError))
