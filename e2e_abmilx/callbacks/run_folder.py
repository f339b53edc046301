"""The folder of a run: what an earlier run left there is put aside once a new one really begins."""

import logging
import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

logger = logging.getLogger(__name__)

#: What a run writes into its folder, or what is written of it there.
RUN_FILES = (
    "fit.yaml", "run.yaml", "splits.csv", "best.ckpt", "last.ckpt", "metrics.csv", "hparams.yaml", "predictions.csv",
    "figures", "heatmaps", "features",
)  # fmt: skip


class RunFolder(Callback):
    """Say where files of a run go, and put those of an earlier one aside when a fit begins.

    By then the config is read, and model and data are built and found to fit each other: a mistake in them displaces
    nothing. Nor does a run to try things out (``fast_dev_run``).

    Args:
        verb: What the command line does: ``fit`` writes into ``trainer.default_root_dir``, others into a folder in it.
        resume: Whether the fit goes on with the run that is there.
    """

    def __init__(self, verb: str, *, resume: bool = False) -> None:
        self.verb, self.resume = verb, resume

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put an earlier run aside."""
        if not self.resume and not getattr(trainer, "fast_dev_run", False):
            set_aside(Path(trainer.default_root_dir))


def folder_of(trainer: Trainer) -> Path:
    """The folder that predictions, the run's record and its config go to, whatever logger there is."""
    root = Path(trainer.default_root_dir)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunFolder) and callback.verb != "fit":
            return root / callback.verb
    return root


@rank_zero_only
def set_aside(run: Path) -> None:
    """Move the files of an earlier run into ``earlier-1``, ``earlier-2``, … so that nothing finished is lost."""
    old = [run / name for name in RUN_FILES if (run / name).exists()]
    if not any(path.suffix == ".ckpt" for path in old) or list(run.glob("hpc_ckpt_*.ckpt")):
        return
    number = 1
    while (run / f"earlier-{number}").exists():
        number += 1
    (run / f"earlier-{number}").mkdir()
    for path in old:
        shutil.move(path, run / f"earlier-{number}" / path.name)
    logger.info("%s held a run already; its files are in %s", run, run / f"earlier-{number}")
