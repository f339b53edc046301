"""A check that all machines of a run see the same files."""

import socket
import time
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.errors import InputError

_PATIENCE_S = 10.0  # until a file on NFS is seen by another machine

T = TypeVar("T")


class SameFiles(Callback):
    """Refuse a run on several machines that do not see the same run folder, or that have other cases.

    Checkpoints are written by the first process and read by all, and each process writes the maps of its own cases, so
    the run's folder must be shared. Each process chooses its cases from the whole cohort, so with another cohort on one
    machine cases would be left out, or the processes would wait for each other.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare the machines.

        Raises:
            InputError: They differ; all processes raise it.
        """
        if trainer.num_nodes == 1:
            return
        _refuse_other_folders(trainer)
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, BagDataModule):
            _refuse_other_cohorts(data)


def _refuse_other_folders(trainer: Trainer) -> None:
    run = Path(trainer.default_root_dir)
    mark = (
        run / f".{trainer.strategy.broadcast(uuid.uuid4().hex)}.seen"
    )  # a new name, which no machine has in its cache
    if trainer.is_global_zero:
        mark.touch()
    trainer.strategy.barrier()
    seen = _gather((socket.gethostname(), _appears(mark)))
    if trainer.is_global_zero:
        mark.unlink()
    blind = sorted({host for host, sees in seen if not sees})
    if blind:
        raise InputError(
            f"{run} of the first process, on {seen[0][0]}, is not seen on {', '.join(blind)}; set trainer.default_root_dir to"
            " a folder on a disk that all machines share, and start all processes in the same folder if it is relative"
        )


def _refuse_other_cohorts(data: BagDataModule) -> None:
    cases = [(case.id, case.slides, case.split) for case in data.read_cases]
    facts = repr((cases, data.targets, data.classes, data.time_edges, data.describe_input()))
    every = _gather((socket.gethostname(), len(cases), zlib.crc32(facts.encode())))
    first, *others = every
    for host, count, checksum in others:
        if checksum != first[2]:
            raise InputError(
                f"{host} has {count} cases, and {first[0]} {first[1]}, and they are not the same cases with the same slides,"
                " splits, targets and patches: every machine needs the same label table, splits and cache, on a disk that"
                " all share or as copies"
            )


def _appears(path: Path) -> bool:
    """Return whether a file is there, or comes soon."""
    end = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _gather(value: T) -> Sequence[T]:
    """Return the values of all processes, the first process's first."""
    values: list[T] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
