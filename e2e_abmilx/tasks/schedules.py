"""Schedules: learning rates over a run."""

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up, then cosine decay whose phase began at step 0.

    The rate rises from ``warmup_lr`` over the first ``warmup`` fraction of the steps. Then, with the small jump of the
    authors' schedule, it follows the half cosine from the optimizer's rate down to ``min_lr``.

    Args:
        optimizer: The optimizer whose rates are scheduled.
        total_steps: Optimizer steps of the whole run.
        warmup: Fraction of the steps for the warm-up, in [0, 1): 10 of 75 epochs are 0.13333. Rounded to whole steps.
        warmup_lr: Rate of the first step of a warm-up.
        min_lr: Rate at the end of the cosine.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup: float = 0.0,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-7,
    ) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is {warmup}; it is a fraction of the steps and must lie in [0, 1)")
        self.total_steps = total_steps
        self.warmup_steps = round(warmup * total_steps)
        self.warmup_lr = warmup_lr
        self.min_lr = min_lr
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each parameter group at the current step."""
        return [self._rate(float(base)) for base in self.base_lrs]

    def _rate(self, base: float) -> float:
        step = min(self.last_epoch, self.total_steps)
        if step < self.warmup_steps:
            return self.warmup_lr + step * (base - self.warmup_lr) / self.warmup_steps
        return self.min_lr + (base - self.min_lr) * (1 + math.cos(math.pi * step / self.total_steps)) / 2
