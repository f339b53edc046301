"""The folder of a run."""

import logging
import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from e2e_abmilx.errors import InputError

logger = logging.getLogger(__name__)

#: Files and folders of a run, and of heatmaps, features and later tests made from it.
RUN_FILES = (
    "fit.yaml", "run.yaml", "splits.csv", "best.ckpt", "last.ckpt", "metrics.csv", "hparams.yaml", "predictions.csv",
    "embeddings.npz", "attention", "faithfulness.csv", "figures", "heatmaps", "features", "validate", "test", "predict",
)  # fmt: skip


class RunFolder(Callback):
    """Choose the folder for the files of a command, and archive an earlier run when a fit starts.

    When a fit starts, the config has been read, and model and data have been built and found to match, so that a
    mistake in them does not move the files of the earlier run. Neither does a trial run (``fast_dev_run``).

    Args:
        command: ``fit`` writes into ``trainer.default_root_dir``, other commands into a subfolder of their name.
        resume: Whether the fit resumes the run in the folder.
    """

    def __init__(self, command: str, *, resume: bool = False) -> None:
        self.command, self.resume = command, resume

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Archive an earlier run.

        Raises:
            InputError: The new run would not train or not validate anything.
        """
        if getattr(trainer, "fast_dev_run", False):
            return
        _refuse_empty_runs(trainer)
        if not self.resume:
            archive_earlier_run(Path(trainer.default_root_dir))


def folder_of(trainer: Trainer) -> Path:
    """Return the folder of predictions, of the run's record and of its config, whatever the logger is."""
    root = Path(trainer.default_root_dir)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunFolder) and callback.command != "fit":
            return root / callback.command
    return root


def writes_tables(trainer: Trainer) -> bool:
    """Return whether this process writes the tables of a test: the first one, and not in a trial run.

    A trial run (``fast_dev_run``) must not overwrite the tables of a real one.
    """
    return trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)


@rank_zero_only
def archive_earlier_run(run: Path) -> None:
    """Move the files of an earlier run into a subfolder ``earlier-1``, ``earlier-2``, … of the run's folder.

    A folder without a checkpoint holds no run that is worth keeping. One with a checkpoint of Lightning for a
    preempted job (``hpc_ckpt_*.ckpt``) is about to be resumed.
    """
    old = [run / name for name in RUN_FILES if (run / name).exists()]
    if not any(path.suffix == ".ckpt" for path in old) or list(run.glob("hpc_ckpt_*.ckpt")):
        return
    number = 1
    while (run / f"earlier-{number}").exists():
        number += 1
    archive = run / f"earlier-{number}"
    archive.mkdir()
    for path in old:
        shutil.move(path, archive / path.name)
    logger.info("%s already held a run; its files are now in %s", run, archive)


def _refuse_empty_runs(trainer: Trainer) -> None:
    epochs = trainer.max_epochs or 0
    empty = {
        "max_epochs": epochs == 0 and trainer.max_steps == -1,
        "max_steps": trainer.max_steps == 0,
        "limit_train_batches": trainer.limit_train_batches == 0,
        "limit_val_batches": trainer.limit_val_batches == 0,
        "check_val_every_n_epoch": 0 < epochs < (trainer.check_val_every_n_epoch or 1),
    }
    for name, is_empty in empty.items():
        if is_empty:
            raise InputError(
                f"trainer.{name} is {getattr(trainer, name)}, so that nothing is trained or no checkpoint is chosen by"
                " validation; set it so that each happens at least once"
            )
