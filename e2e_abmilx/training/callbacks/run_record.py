"""The record of a run: versions, hardware and durations."""

import importlib.metadata
import os
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from e2e_abmilx import __version__
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.training.callbacks.run_folder import folder_of

_PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "lifelines", "tiffslide", "zarr")


class RunRecord(Callback):
    """Write ``run.yaml`` into the run's folder.

    It is written when a fit starts, so that a killed run has it too, and again when the fit and the test after it end.
    Sections: ``versions``; ``hardware`` of the first process and the number of ``processes``; ``precision``; ``seed``;
    ``parameters`` of encoder and head; ``fit``, with its times in UTC and the peak of GPU memory (GiB), and ``test``; ``best``, the epoch of ``best.ckpt``
    (from 0), and metric, mode and value by which it was chosen, null if it is the last one; and ``threshold``, which
    the test used, with its rule and the number of cases that it was fitted on. The seconds of a resumed fit are those
    before its checkpoint plus those after it; versions and hardware are the latest ones. The time to prepare data is
    not included.
    """

    def __init__(self) -> None:
        self._path = Path()
        self._record: dict[str, Any] = {}
        self._past = _new_fit()
        self._started_s = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit of the same trainer."""
        if stage == "fit":
            self._past = _new_fit()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the duration of a resumed fit."""
        if trainer.state.fn == TrainerFn.FITTING and "run_record" in checkpoint:
            past = checkpoint["run_record"]
            self._past = {**past, "times_resumed": past["times_resumed"] + 1}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the duration so far."""
        checkpoint["run_record"] = {**self._past, "seconds": self._fit_s()}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is known at the start."""
        self._path = folder_of(trainer) / "run.yaml"
        self._started_s = time.monotonic()
        seed = os.environ.get("PL_GLOBAL_SEED")  # set by seed_everything
        self._record = {
            "versions": _versions(),
            "hardware": _hardware(trainer),
            "precision": trainer.precision,
            "seed": None if seed is None else int(seed),
            "parameters": _parameters(pl_module),
            "fit": {
                "started": datetime.fromisoformat(self._past["started"]),
                "ended": None,
                "seconds": round(self._past["seconds"], 2),
                "times_resumed": self._past["times_resumed"],
            },
            "best": None,
            "test": None,
            "threshold": None,
        }
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the duration and the best epoch."""
        seconds, epochs = self._fit_s(), trainer.current_epoch
        self._record["fit"] |= {
            "ended": _now(),
            "seconds": round(seconds, 2),
            "epochs": epochs,
            "seconds_per_epoch": round(seconds / epochs, 2) if epochs else None,
            "peak_gpu_memory_gib": _peak_memory_gib(trainer),
        }
        if trainer.is_global_zero:
            self._record["best"] = _best(trainer)
        self._write(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started_s = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test that follows a fit; the command test leaves the record of the fit unchanged."""
        if self._record:
            self._record["test"] = {"ended": _now(), "seconds": round(self._elapsed_s(), 2)}
            threshold = getattr(pl_module, "threshold", None)
            self._record["threshold"] = None if threshold is None else asdict(threshold)
            self._write(trainer)

    def _fit_s(self) -> float:
        seconds: float = self._past["seconds"]
        return seconds + self._elapsed_s()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        record = yaml.safe_dump(self._record, sort_keys=False, allow_unicode=True)
        with atomic_write(self._path) as partial:
            partial.write_text(record, encoding="utf-8")


def _new_fit() -> dict[str, Any]:
    """Return the state of a fit that has not run in an earlier process, as checkpoints record it."""
    return {"started": _now().isoformat(), "seconds": 0.0, "times_resumed": 0}


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _versions() -> dict[str, str | None]:
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    own = {"e2e_abmilx": __version__, "python": platform.python_version()}
    return own | packages | {"cuda": torch.version.cuda}


def _hardware(trainer: Trainer) -> dict[str, Any]:
    on_gpu = trainer.strategy.root_device.type == "cuda"
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(device) for device in trainer.device_ids] if on_gpu else [],
        "processes": trainer.world_size,
    }


def _peak_memory_gib(trainer: Trainer) -> float | None:
    """Return the most memory that tensors took on the first process's GPU so far; None without a GPU."""
    device = trainer.strategy.root_device
    return round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _parameters(task: LightningModule) -> dict[str, int]:
    parts = {"encoder": task.encoder, "head": task.head} if isinstance(task, BagTask) else {}
    return {name: sum(weights.numel() for weights in part.parameters()) for name, part in parts.items()}


def _best(trainer: Trainer) -> dict[str, Any] | None:
    """Return epoch, metric, mode and value of the best checkpoint; None where there is none."""
    for callback in trainer.checkpoint_callbacks:  # the first is the run's own BestCheckpoint
        if isinstance(callback, ModelCheckpoint) and Path(callback.best_model_path).is_file():
            # memory-mapped, so that the weights are not read
            kept = torch.load(callback.best_model_path, map_location="cpu", mmap=True, weights_only=True)
            value = None if callback.best_model_score is None else round(float(callback.best_model_score), 6)
            mode = None if callback.monitor is None else callback.mode
            return {"epoch": kept["epoch"], "monitor": callback.monitor, "mode": mode, "value": value}
    return None
