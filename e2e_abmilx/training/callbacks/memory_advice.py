"""Advice on settings when the device runs out of memory."""

import logging

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.tasks import BagTask

logger = logging.getLogger(__name__)


class MemoryAdvice(Callback):
    """Log which settings reduce memory, and their present values, when memory runs out."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the advice if memory ran out."""
        if isinstance(pl_module, BagTask) and _is_out_of_memory(exception):
            logger.error("%s", _advice(pl_module, training=trainer.training))


def _advice(task: BagTask, *, training: bool) -> str:
    if not training:
        return (
            "out of memory in evaluation, which holds one part of a slide at a time: lower data.eval_chunk_size,"
            " or use half precision (trainer.precision: bf16-mixed)"
        )
    if not task.gradient_checkpointing:
        return (
            "out of memory in training: set model.gradient_checkpointing to true (now false), which keeps no activations"
            " and changes no result, and then lower model.train_chunk_size"
            f" (now {task.train_chunk_size} patches)"
        )
    return (
        f"out of memory in training: lower model.train_chunk_size (now {task.train_chunk_size} patches, with"
        " model.gradient_checkpointing already true); if a chunk is already small, lower data.patches_per_bag or"
        " data.batch_size"
    )


def _is_out_of_memory(exception: BaseException) -> bool:
    on_cpu = isinstance(exception, RuntimeError) and "can't allocate memory" in str(exception)
    return on_cpu or isinstance(exception, (torch.OutOfMemoryError, MemoryError))
