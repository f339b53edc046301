"""What a run was made with, on what, and how long it took."""

import importlib.metadata
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from e2e_abmilx import __version__
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.training.callbacks.checkpoints import BestCheckpoint
from e2e_abmilx.training.callbacks.run_folder import folder_of

_PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "lifelines", "tiffslide", "zarr")


@dataclass(frozen=True)
class _Past:
    """What a fit was before this process, as its checkpoints keep it."""

    started: str
    seconds: float = 0.0
    times_resumed: int = 0


class RunRecord(Callback):
    """Write ``run.yaml`` into the run's folder.

    It is written when a fit begins, so that one that is killed has it too, and again when the fit and the test that
    follows it end. Sections: ``versions``; ``hardware`` of the first process and the number of ``processes``;
    ``precision``; ``seed``; ``parameters`` of encoder and head; ``fit`` and ``test``, with times in UTC; and ``best``,
    the epoch, from 0 on, that ``best.ckpt`` was written in. Seconds of a resumed fit are those up to its checkpoint
    and those from there on; versions and hardware are the last ones. Preparing data does not count.
    """

    def __init__(self) -> None:
        self._path = Path()
        self._record: dict[str, Any] = {}
        self._past = _Past(_now().isoformat())
        self._began_s = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit of the same trainer."""
        if stage == "fit":
            self._past = _Past(_now().isoformat())

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take over the time of a fit that goes on."""
        if trainer.state.fn == TrainerFn.FITTING and "run_record" in checkpoint:
            past = _Past(**checkpoint["run_record"])
            self._past = replace(past, times_resumed=past.times_resumed + 1)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the time so far."""
        checkpoint["run_record"] = asdict(replace(self._past, seconds=self._fit_s()))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is known by now."""
        self._path = folder_of(trainer) / "run.yaml"
        self._began_s = time.monotonic()
        self._record = {
            "versions": _versions(),
            "hardware": _hardware(trainer),
            "precision": trainer.precision,
            "seed": _seed(),
            "parameters": _parameters(pl_module),
            "fit": {
                "started": datetime.fromisoformat(self._past.started),
                "ended": None,
                "seconds": round(self._past.seconds, 2),
                "times_resumed": self._past.times_resumed,
            },
            "best": None,
            "test": None,
        }
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add how long it took, and which epoch was the best."""
        seconds, epochs = self._fit_s(), trainer.current_epoch
        self._record["fit"] |= {
            "ended": _now(),
            "seconds": round(seconds, 2),
            "epochs": epochs,
            "seconds_per_epoch": round(seconds / epochs, 2) if epochs else None,
        }
        if trainer.is_global_zero:
            self._record["best"] = _best(trainer)
        self._write(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._began_s = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test of a fit; a test by itself leaves its run's record alone."""
        if self._record:
            self._record["test"] = {"ended": _now(), "seconds": round(self._passed_s(), 2)}
            self._write(trainer)

    def _fit_s(self) -> float:
        return self._past.seconds + self._passed_s()

    def _passed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        record = yaml.safe_dump(self._record, sort_keys=False, allow_unicode=True)
        with atomic_write(self._path) as partial:
            partial.write_text(record, encoding="utf-8")


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


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _seed() -> int | None:
    """The seed that ``seed_everything`` was called with, if it was."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)


def _parameters(task: LightningModule) -> dict[str, int]:
    return {"encoder": _count(task.encoder), "head": _count(task.head)} if isinstance(task, BagTask) else {}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _best(trainer: Trainer) -> dict[str, Any] | None:
    """Epoch and value of the checkpoint that was chosen; None where none was."""
    ours_first = sorted(trainer.checkpoint_callbacks, key=lambda one: not isinstance(one, BestCheckpoint))
    for callback in ours_first:
        if isinstance(callback, ModelCheckpoint) and Path(callback.best_model_path).is_file():
            # memory-mapped: the weights stay on disk
            kept = torch.load(callback.best_model_path, map_location="cpu", mmap=True, weights_only=True)
            value = None if callback.best_model_score is None else round(float(callback.best_model_score), 6)
            return {"epoch": kept["epoch"], "monitor": callback.monitor, "value": value}
    return None
