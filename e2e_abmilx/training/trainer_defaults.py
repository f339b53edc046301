"""Arguments of the trainer that a config leaves open: folder, logger, precision, progress."""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.urls import refuse_url
from e2e_abmilx.training.callbacks import FeatureWriter, PatchBar, ProgressLines
from e2e_abmilx.training.callbacks.run_folder import RunFolder
from e2e_abmilx.training.callbacks.same_files import SameFiles
from e2e_abmilx.training.loggers import RunLogger
from e2e_abmilx.training.precision import best_precision

logger = logging.getLogger(__name__)


def trainer_defaults(settings: Any, command: str, checkpoint: str | None) -> dict[str, Any]:  # noqa: ANN401
    """Return the arguments that complete the trainer's settings of a config, and make the run's folder.

    A fit that starts from a ``checkpoint`` in the run's folder resumes the run.

    Raises:
        InputError: The folder is a URL or cannot be written, or checkpoints are disabled.
    """
    refuse_url("trainer.default_root_dir", settings.default_root_dir)
    run = Path(settings.default_root_dir or f"runs/{command}")
    _make_folder(run)
    if settings.enable_checkpointing is False:
        raise InputError(
            "trainer.enable_checkpointing is false, but a run needs best.ckpt, which is tested, and last.ckpt, which it"
            " is resumed from; leave it out, or try a config out with --trainer.fast_dev_run true"
        )
    resume = checkpoint is not None and Path(checkpoint).resolve().parent == run.resolve()
    callbacks = settings.callbacks or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    show = settings.enable_progress_bar in (None, True)
    defaults: dict[str, Any] = {
        "default_root_dir": str(run),
        "callbacks": [
            RunFolder(command, resume=resume),
            SameFiles(),
            *callbacks,
            *(_progress(callbacks) if show else []),
        ],
    }
    if settings.logger in (None, True):
        # Lightning resumes a job that SLURM has preempted by itself
        resume |= command == "fit" and any(run.glob("hpc_ckpt_*.ckpt"))
        defaults["logger"] = RunLogger(run, version="" if command == "fit" else command, resume=resume)
    if settings.precision is None:
        defaults["precision"] = _precision(settings.accelerator, callbacks)
    return defaults


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run).close()
    except OSError as error:
        raise InputError(
            f"{run} cannot be written ({error.strerror}); set trainer.default_root_dir to a folder that you may write to"
        ) from error


def _progress(callbacks: list[Callback]) -> list[ProgressBar]:
    """Return the progress bar to add to the user's callbacks, if any."""
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    if not sys.stdout.isatty():  # where Lightning's bar is drawn
        return [ProgressLines()]
    return [PatchBar()]


def _precision(accelerator: str, callbacks: list[Callback]) -> str:
    if any(isinstance(callback, FeatureWriter) for callback in callbacks):
        logger.info("precision 32-true, so that the features that are written are not rounded")
        return "32-true"
    precision = best_precision(accelerator)
    logger.info("precision %s, which suits this device (trainer.precision sets another)", precision)
    return precision
