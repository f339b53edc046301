"""Fits on two "nodes": two launchers on this machine, each with a working folder of its own, that meet on loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

ROOT = Path(__file__).parents[1]
STEPS = 3  # of an epoch: 12 training cases, 2 to a process
EPOCHS = 3
TIMINGS = ("train/data_wait",)

#: A callback that kills a process, and its launcher too if a whole node is to die.
KILLER = """
import os, signal, time
from lightning.pytorch import Callback

class Kill(Callback):
    def __init__(self, step: int, rank: int = 1, node: bool = False) -> None:
        self.step, self.rank, self.node = step, rank, node

    def on_train_batch_start(self, trainer, *_):
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            with open("killed_at", "w") as file:
                file.write(str(time.time()))
            if self.node:
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

class Slow(Callback):
    def on_train_batch_start(self, *_):
        time.sleep(0.2)
"""


class Ended(NamedTuple):
    """How a launcher ended: its exit status, and what it and its process printed."""

    status: int
    log: str


def write_config(folder: Path, cohort: Path, stores: Path, *, batch_size: int = 2, **trainer: Any) -> Path:
    """Write a config of three epochs of three steps on two processes; the run goes into ``folder/run``."""
    encoder = {"name": "test_resnet", "pretrained": False, "frozen_norms": True}
    content = {
        "seed_everything": 3,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {
                "num_outputs": 2,
                "encoder": {"class_path": "TimmEncoder", "init_args": encoder},
                "head": {"class_path": "ABMILX", "init_args": {"hidden_features": 16, "num_heads": 2, "dropout": 0.0}},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.005, "momentum": 0.9}},
                "schedule": {"class_path": "WarmupCosine", "init_args": {"warmup": 0.2}},
                "train_chunk_size": 16,
            },
        },
        "data": {
            "class_path": "SlideDataModule",
            "init_args": {
                "cache": str(stores), "labels": str(cohort / "labels.csv"), "columns": {"label": "lesion"},
                "patches_per_bag": 8, "batch_size": batch_size, "num_workers": 0,
            },
        },
        "last_checkpoint": {"every_n_steps": 1},
        "trainer": {
            "default_root_dir": str(folder / "run"), "max_epochs": EPOCHS, "accelerator": "cpu", "precision": "32-true",
            "enable_progress_bar": False, "log_every_n_steps": 1, **trainer,
        },
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "killer.py").write_text(KILLER)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def environment(config: Path, **more: str) -> dict[str, str]:
    """Return the environment of a node, without what an outer launcher may have set."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_"))}
    paths = os.pathsep.join([str(ROOT), str(config.parent)])
    return {**outer, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def fit_alone(config: Path, *options: str) -> None:
    """Fit in one command on this machine; Lightning starts further processes itself."""
    command = [sys.executable, "-m", "e2e_abmilx", "fit", "--config", str(config), *options]
    how = environment(config, MASTER_PORT=str(free_port()))
    done = subprocess.run(command, env=how, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def fit_on_nodes(config: Path, *options: str, devices: int = 1, num_nodes: int = 2) -> list[Ended]:
    """Fit with two agents of torchrun; ``devices`` and ``num_nodes`` are what the trainer is told."""
    port, running = free_port(), []
    for node in (0, 1):
        folder = config.parent / f"node-{node}"
        folder.mkdir(exist_ok=True)
        rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--local_addr", "127.0.0.1"]
        # the first node alone hosts the store, as that of the named machine does on a cluster
        host = ["--rdzv_conf", f"is_host={int(node == 0)}"]
        launcher = ["torchrun", "--nnodes", "2", "--nproc_per_node", "1", "--rdzv_id", "test", *rendezvous, *host]
        launcher[:1] = [sys.executable, "-m", "torch.distributed.run"]
        trainer = ["--trainer.num_nodes", str(num_nodes), "--trainer.devices", str(devices)]
        command = [*launcher, "-m", "e2e_abmilx", "fit", "--config", str(config), *trainer, *options]
        running.append(start(command, folder, environment(config)))
    return [wait_for(one, config.parent / f"node-{node}") for node, one in enumerate(running)]


def start(command: list[str], folder: Path, how: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in a working folder, as the leader of a process group; it prints into ``log`` there."""
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            command, cwd=folder, env=dict(how), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_for(process: subprocess.Popen[bytes], folder: Path, timeout_s: float = 120) -> Ended:
    """Wait for a command; kill it and all it has started if that takes too long."""
    try:
        status = process.wait(timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return Ended(status, (folder / "log").read_text(errors="replace"))


def assert_same_run(one: Path, other: Path) -> None:
    """Compare checkpoints, metrics and predictions bit for bit."""
    for name in ("last.ckpt", "best.ckpt"):
        states = [torch.load(run / name, weights_only=False) for run in (one, other)]
        assert states[0]["global_step"] == states[1]["global_step"]
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            torch.testing.assert_close(states[0][part], states[1][part], rtol=0, atol=0, msg=f"{name}: {part}")
    assert metrics_of(one) == metrics_of(other)
    assert (one / "predictions.csv").read_text() == (other / "predictions.csv").read_text()


def metrics_of(run: Path) -> list[dict[str, str]]:
    """Return the rows of ``metrics.csv`` without measured times."""
    import csv

    with open(run / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMINGS} for row in csv.DictReader(file)]
