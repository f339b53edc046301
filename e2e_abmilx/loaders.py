"""Loaders of bags."""

import os
import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from e2e_abmilx.bags import NOTHING, Bag


class BagLoader(DataLoader[Bag]):
    """A ``DataLoader`` that knows how long it was waited for.

    Attributes:
        waited_s: Seconds that its user has waited for batches in the present pass.
    """

    waited_s = 0.0

    def __iter__(self) -> Iterator[Bag]:  # type: ignore[override] # the base class promises its own iterator
        self.waited_s = 0.0
        batches = super().__iter__()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


class Padded(Dataset[Bag]):
    """A data set with one more item, that is nothing: what a process gets that has less to do than others.

    Args:
        bags: The data set.
    """

    def __init__(self, bags: Dataset[Bag]) -> None:
        self.bags = bags

    def __len__(self) -> int:
        return len(self.bags)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Bag:
        """Return an item, or nothing."""
        return self.bags[index] if index < len(self) else NOTHING


def recommended_workers(processes: int = 1) -> int:
    """How many processes should read bags for each training process of this machine.

    A GPU leaves the cores to the readers: all but one of its share, at most 16. A CPU that trains needs its cores
    itself: reading a patch takes it a twentieth of the time of training on it, so that one reader does.

    Args:
        processes: Training processes on this machine.
    """
    if not torch.cuda.is_available():
        return 1
    return max(1, min(16, (os.cpu_count() or 1) // processes - 1))
