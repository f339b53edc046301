"""When memory runs out, the log names the settings that reduce it; other errors bring no advice."""

from pathlib import Path

import pytest
import torch
from small_fits import make_data, make_task, make_trainer
from torch import Tensor

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.training.callbacks import MemoryAdvice


class _Hungry(Precomputed):
    """Runs out of memory in training or in evaluation."""

    def __init__(self, error: Exception, *, training: bool = True) -> None:
        super().__init__(6)
        self.error, self.when_training = error, training

    def forward(self, features: Tensor) -> Tensor:
        if self.training == self.when_training:
            raise self.error
        return features


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_settings_that_reduce_memory_in_training(
    error: Exception, gradient_checkpointing: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(_Hungry(error), train_chunk_size=48, gradient_checkpointing=gradient_checkpointing)
    with pytest.raises(type(error)):
        make_trainer(tmp_path, MemoryAdvice()).fit(task, make_data(tmp_path))
    assert "model.train_chunk_size (now 48 patches" in caplog.text
    assert (
        "model.gradient_checkpointing already true"
        if gradient_checkpointing
        else "model.gradient_checkpointing to true (now false)"
    ) in caplog.text


def test_settings_that_reduce_memory_in_evaluation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = make_task(_Hungry(MemoryError("no memory"), training=False))
    with pytest.raises(MemoryError):
        make_trainer(tmp_path, MemoryAdvice()).validate(task, make_data(tmp_path))
    assert "lower data.eval_chunk_size" in caplog.text


def test_other_errors_bring_no_advice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = make_task(_Hungry(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        make_trainer(tmp_path, MemoryAdvice()).fit(task, make_data(tmp_path))
    assert "out of memory" not in caplog.text
