"""Detection of losses that are NaN or infinite, without waiting for the device."""

import torch
from torch import Tensor

from e2e_abmilx.errors import InputError


class LossWatch:
    """A check of each loss, one step late.

    Reading a number from a GPU waits for the GPU, with nothing queued in the meantime. Here the loss is copied to the CPU
    asynchronously, and the next step reads the copy. By then the model has been updated once with a bad loss, so
    :meth:`check` must also be called before anything is saved, such as a checkpoint.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, torch.cuda.Event | None, str] | None = None

    def note(self, loss: Tensor, place: str) -> None:
        """Remember a loss, a scalar, and its place, such as ``"epoch 0, batch 3, of cases a, b"``."""
        event = torch.cuda.Event() if loss.is_cuda else None
        # a non-blocking copy goes to pinned memory
        copy = loss.detach().to("cpu", non_blocking=event is not None)
        if event is not None:
            event.record()
        self._last = (copy, event, place)

    def check(self) -> None:
        """Check the loss that was noted last.

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
                " gradients (trainer.gradient_clip_val: 1.0), or use another precision (trainer.precision: bf16-mixed,"
                " 32-true)"
            )
        self._last = None
