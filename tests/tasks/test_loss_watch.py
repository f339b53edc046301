"""Losses that are not finite are found one step later."""

import pytest
import torch

from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks.loss_watch import LossWatch


def test_nothing_to_check_before_the_first_loss() -> None:
    LossWatch().check()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_reported_with_its_place(value: float) -> None:
    watch = LossWatch()
    watch.note(torch.tensor(value, requires_grad=True), "epoch 0, batch 3, of cases a, b")
    for _ in range(2):  # a checkpoint must not be saved after the first refusal either
        with pytest.raises(InputError, match=f"the loss is {value} in epoch 0, batch 3, of cases a, b; .*precision"):
            watch.check()
    watch.note(torch.tensor(1.0), "epoch 0, batch 4, of cases c")
    watch.check()
