"""Losses that are no numbers, found without keeping the device waiting."""

import torch
from torch import Tensor

from e2e_abmilx.errors import InputError


class LossWatch:
    """Looks at each loss one step later.

    To look at a number on a GPU is to wait for it, with nothing queued behind it meanwhile. Here the loss travels to the
    CPU by itself, and the next step finds it there. A loss that is no number has then been learned from once; that is why
    it must also be looked at before anything is kept, such as a checkpoint.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, torch.cuda.Event | None, str] | None = None

    def note(self, loss: Tensor, place: str) -> None:
        """Remember a loss.

        Args:
            loss: A scalar.
            place: Where it was met, such as ``"epoch 0, batch 3, of cases a, b"``.
        """
        event = torch.cuda.Event() if loss.is_cuda else None
        # to pinned memory, which the copy need not be waited for
        copy = loss.detach().to("cpu", non_blocking=event is not None)
        if event is not None:
            event.record()
        self._last = (copy, event, place)

    def check(self) -> None:
        """Look at the loss that was noted last.

        Raises:
            InputError: It is NaN or infinite.
        """
        if self._last is None:
            return
        loss, event, place = self._last
        if event is not None:
            event.synchronize()
        if not loss.isfinite():
            raise InputError(
                f"the loss is {loss.item()} in {place}; look at their slides and labels, lower the learning rate, clip"
                " gradients (trainer.gradient_clip_val: 1.0), or take another precision (trainer.precision: bf16-mixed,"
                " 32-true)"
            )
        self._last = None
