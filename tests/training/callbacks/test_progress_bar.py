"""Bars of a fit in a terminal, and lines in a pipe."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from slide_runs import write_slide_config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from e2e_abmilx.training.callbacks import PatchBar


def _in_a_terminal(words: list[str]) -> str:
    """Return the output of a command in a terminal of 160 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    sent = b""
    # on Linux, the end of the output raises an error
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
        while part := terminal.read(4096):
            sent += part
    assert process.wait() == 0, sent.decode()
    return sent.decode()


@pytest.fixture
def command(cohort: Path, stores: Path, tmp_path: Path) -> list[str]:
    config = write_slide_config(tmp_path, cohort, stores)
    config.write_text(config.read_text().replace("enable_progress_bar: false", "enable_progress_bar: null"))
    return [sys.executable, "-m", "e2e_abmilx", "fit", "--config", str(config)]


def test_a_terminal_shows_patches_per_second_and_the_table_of_metrics(command: list[str]) -> None:
    sent = _in_a_terminal([*command, "--trainer.max_epochs", "2"])
    training = r"Epoch 1/1: 100%\|█+\| 2/2 \[00:\d\d<00:\d\d, patches/s=\d+, loss_step=\d+\.\d+, data_wait=\d"
    assert re.search(training, sent)
    assert re.search(r"Epoch 0/1: .* 1/2 \[.*, patches/s=\d+, fit ends in=0:00:\d\d", sent)
    assert re.search(r"Validation .*/4 \[.*, patches/s=\d+\]", sent)
    assert re.search(r"Testing .*/8 \[.*, patches/s=\d+\]", sent)
    assert re.search(r"^  AUC +[01]\.\d\d\d\r?$", sent, re.MULTILINE)
    assert "Test metric" not in sent
    assert "GPU=" not in sent or "GPU available: True" in sent


@pytest.mark.slow  # a fit in a process of its own
def test_a_pipe_gets_no_bars(command: list[str]) -> None:
    ran = subprocess.run([*command, "--trainer.max_epochs", "1"], capture_output=True, text=True, check=True)
    assert "\r" not in ran.stdout + ran.stderr
    assert "patches/s" not in ran.stdout + ran.stderr
    assert "INFO: epoch 0: train/loss_epoch" in ran.stderr
    assert "test/auc" in ran.stdout


class _Reads(TorchDispatchMode):
    """Count the tensors that are turned into numbers, for which a GPU would have to finish its work."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


class _Module(LightningModule):
    """Logs the number of the step as its loss, as a tensor and not for Lightning's bar."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.steps = torch.zeros(())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.steps = self.steps + 1
        self.log("train/loss_step", self.steps)
        loss: Tensor = self.layer(batch).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_bar_does_not_wait_for_the_device_in_every_step(tmp_path: Path) -> None:
    bar, module, steps = PatchBar(), _Module(), 200
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, callbacks=[bar], logger=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    started = time.monotonic()
    with _Reads() as reads:
        trainer.fit(module, DataLoader([torch.ones(1)] * steps))  # type: ignore[arg-type]
    assert bar.get_metrics(trainer, module) == {"loss_step": steps}  # the last batch is shown
    assert reads.count <= 10 + 2 * (time.monotonic() - started)  # Lightning reads a few at the start and the end
