"""The folder of a run: what an earlier run left there is put aside once a new one really begins."""

import logging
import shutil
import zipfile
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from e2e_abmilx.errors import InputError

logger = logging.getLogger(__name__)

#: What a run writes into its folder, or what is written of it there.
RUN_FILES = (
    "fit.yaml", "run.yaml", "splits.csv", "best.ckpt", "last.ckpt", "metrics.csv", "hparams.yaml", "predictions.csv",
    "figures", "heatmaps", "features", "validate", "test", "predict",
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
        """Put an earlier run aside.

        Raises:
            InputError: Nothing would be trained, or nothing validated, so that there would be nothing in its place.
        """
        _refuse_empty_runs(trainer)
        if not self.resume and not getattr(trainer, "fast_dev_run", False):
            set_aside(Path(trainer.default_root_dir))


def _refuse_empty_runs(trainer: Trainer) -> None:
    epochs = trainer.max_epochs or 0
    empty = {
        "trainer.max_epochs": epochs == 0 and trainer.max_steps == -1,
        "trainer.max_steps": trainer.max_steps == 0,
        "trainer.limit_train_batches": trainer.limit_train_batches == 0,
        "trainer.limit_val_batches": trainer.limit_val_batches == 0,
        "trainer.check_val_every_n_epoch": 0 < epochs < (trainer.check_val_every_n_epoch or 1),
    }
    for name, is_empty in empty.items():
        if is_empty and not getattr(trainer, "fast_dev_run", False):
            raise InputError(
                f"{name} is {getattr(trainer, name.removeprefix('trainer.'))}, so that nothing is trained or no validation"
                " chooses a checkpoint; set it so that both happen at least once"
            )


def find_checkpoint(stated: str | None, run: Path) -> str | None:
    """The file that a checkpoint's name means, once it is found to be one.

    Args:
        stated: A path, or ``"best"`` or ``"last"`` for that of the run; None for none. Folders, addresses and what else
            only Lightning knows are left to it.
        run: Folder of the run.

    Raises:
        InputError: There is no such file, or it is no checkpoint.
    """
    if stated is None or stated == "hpc" or ":" in stated or Path(stated).is_dir():
        return stated
    path = run / f"{stated}.ckpt" if stated in ("best", "last") else Path(stated)
    if not path.is_file():
        there = sorted(found.name for found in path.parent.glob("*.ckpt"))
        hint = f"{path.parent} has {', '.join(there)}" if there else "check the path"
        raise InputError(f"there is no checkpoint {path}; {hint}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no checkpoint, or was cut off while it was written; name another")
    return str(path)


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
