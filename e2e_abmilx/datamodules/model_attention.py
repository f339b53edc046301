"""The attention of the model in training to all patches of cases, which an ``AttentionDraw`` draws by."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.errors import InputError

logger = logging.getLogger(__name__)

#: By case, the attention to its patches at each scale, slide by slide, in the order of the stores, shape ``(N,)``.
Attention = Mapping[str, Sequence[NDArray[np.float32]]]


def attention_of(trainer: Trainer, parts: Iterable[Bag]) -> Attention:
    """Return the attention, averaged over heads, of the trainer's model to whole cases.

    All processes call this together, each with cases of its own, and each returns the attention to the cases of all.

    Args:
        trainer: The trainer, during a fit; its model is evaluated as in validation, with its weights as they are now.
        parts: The cases in parts, as in evaluation.

    Raises:
        InputError: The model is not one that gathers the parts of a case.
    """
    model, started = trainer.lightning_module, time.perf_counter()
    gather = getattr(model, "gather", None)
    if gather is None:
        raise InputError(
            f"AttentionDraw draws by the attention of a BagTask, and the model is a {type(model).__name__}; leave data.draw out"
        )
    found: dict[str, Sequence[NDArray[np.float32]]] = {}
    with torch.no_grad(), _evaluating(model), trainer.precision_plugin.val_step_context():
        for part in parts:
            whole = gather(trainer.strategy.batch_to_device(part))
            if whole is not None:
                case, output = whole
                attention, scale = output.attention[0].float().mean(0).cpu().numpy(), case.scale[0].cpu().numpy()
                if case.order is not None:  # draws count patches in the order of the store
                    ranks = case.order[0].cpu().numpy()
                    attention, scale = attention[ranks], scale[ranks]
                found[case.cases[0]] = [attention[scale == k] for k in range(scale.max() + 1)]
    if trainer.world_size > 1:
        found = _join(found, trainer.world_size)
    if found:
        seconds = time.perf_counter() - started
        rank_zero_only(logger.info)("the patches of %d cases were scored by attention in %.1f s", len(found), seconds)
    return found


@contextmanager
def _evaluating(model: LightningModule) -> Iterator[None]:
    """Set the model to evaluation; afterwards every module is in its former mode, which may differ from the model's."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _join(found: dict[str, Sequence[NDArray[np.float32]]], processes: int) -> dict[str, Sequence[NDArray[np.float32]]]:
    """Return the cases of all processes."""
    of_all: list[dict[str, Sequence[NDArray[np.float32]]]] = [{} for _ in range(processes)]
    torch.distributed.all_gather_object(of_all, found)
    return {case: attention for of_one in of_all for case, attention in of_one.items()}
