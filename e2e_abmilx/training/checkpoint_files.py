"""The checkpoint file that a command starts from."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.urls import refuse_url

logger = logging.getLogger(__name__)


def find_checkpoint(stated: str | None, run: Path) -> str | None:
    """Return the file that ``--ckpt_path`` means.

    Args:
        stated: A path, or ``"best"`` or ``"last"`` for that checkpoint of the run; None for none. Folders, URLs of the web and
            ``"hpc"`` are returned unchanged, because Lightning resolves them.
        run: Folder of the run.

    Raises:
        InputError: The file does not exist, is not a checkpoint, or lies in a bucket.
    """
    if stated is not None and not stated.startswith(("http:", "https:")):
        refuse_url("ckpt_path", stated)
    if stated is None or stated == "hpc" or ":" in stated or Path(stated).is_dir():
        return stated
    path = run / f"{stated}.ckpt" if stated in ("best", "last") else Path(stated)
    if not path.is_file():
        others = sorted(found.name for found in path.parent.glob("*.ckpt"))
        hint = f"{path.parent} has {', '.join(others)}" if others else "check the path"
        raise InputError(f"there is no checkpoint {path}; {hint}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a checkpoint, or was not written completely; name another file")
    return str(path)


def find_trained(command: str, run: Path) -> str:
    """Return the best checkpoint of a run, for a command that needs a trained model.

    Raises:
        InputError: The run has none.
    """
    best = run / "best.ckpt"
    if not best.is_file():
        raise InputError(f"{command} needs a trained model, and {best} does not exist; name a checkpoint (--ckpt_path)")
    logger.info("no --ckpt_path is given: the model is %s", best)
    return str(best)


def read_plain(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint file; its weights stay on the disk until they are used."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    return content
