"""Memory of evaluating a slide of 40,000 patches on the CPU, from a real store to the prediction.

    python benchmarks/whole_slide.py [--patches 40000] [--patch_size 224]

The store is written first, by another process. Then a process loads model and data, records its memory, predicts, and
records its peak memory, which includes the data loading processes. For comparison the size of the same slide as one
tensor of floats is printed, which the authors' release needs in evaluation. The encoder is cheap (a linear map of the
mean colours of each patch), so that mainly the streaming is measured. The exit status is 1 if the peak is above 1 GB. It
needs Linux.
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from e2e_abmilx import ABMILX, ClassificationTask, SlideDataModule
from e2e_abmilx.store import StoreWriter

TARGET_MB = 1000


class MeanColours(nn.Module):
    """An encoder: mean colours of 4 × 4 fields, then a linear map."""

    num_features = 256

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(48, self.num_features)

    def forward(self, patches: Tensor) -> Tensor:
        """Encode patches ``(M, 3, S, S)`` as features ``(M, 256)``."""
        return self.project(nn.functional.adaptive_avg_pool2d(patches, 4).flatten(1))


def write_slide(path: Path, patches: int, side: int) -> None:
    """Write a store of a few hundred random textures, repeated."""
    rng = np.random.default_rng(0)
    variety = rng.integers(0, 256, (500, side // 8, side // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    columns = 256
    with StoreWriter(path, [0.5], patch_size=side, threads=2) as writer:
        for start in range(0, patches, 500):
            index = np.arange(start, min(start + 500, patches))
            coords = np.stack([index % columns, index // columns], 1) * side
            writer.write(variety[: len(index)], coords)


def memory_of_processes() -> float:
    """Return the memory of this process and its children, MB: shared memory counts once, mapped library files never."""
    pids = ["self", *(str(child.pid) for child in multiprocessing.active_children())]
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # a child that has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 1024


def predict(cache: Path, result: "multiprocessing.Queue[tuple[float, float, int]]") -> None:
    """Predict the only slide of a cache; return extra memory, seconds and number of patches through the queue."""
    torch.manual_seed(0)
    head = lambda width, outputs: ABMILX(width, outputs, hidden_features=256, num_heads=8)
    task = ClassificationTask(MeanColours(), head, 2)
    data = SlideDataModule(cache)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, precision="32-true"
    )
    before, peak, done = memory_of_processes(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, memory_of_processes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    trainer.predict(task, data)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    result.put((peak - before, seconds, task.predicted_patches.output.attention.shape[-1]))


def main() -> int:
    """Write the store, predict it, print the result and check the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=40_000)
    parser.add_argument("--patch_size", type=int, default=224)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slide.zarr")
        writer = context.Process(target=write_slide, args=(path, arguments.patches, arguments.patch_size))
        writer.start()
        writer.join()
        result = context.Queue()
        reader = context.Process(target=predict, args=(Path(folder), result))
        reader.start()
        peak, seconds, seen = result.get()
        reader.join()
    assert seen == arguments.patches
    floats = arguments.patches * 3 * arguments.patch_size**2 * 4 / 1e6
    print(f"{seen} patches of {arguments.patch_size}²: {seconds:.0f} s, {seen / seconds:.0f} patches/s")
    print(f"peak above the loaded model {peak:.0f} MB (≤ {TARGET_MB}); as one tensor of floats {floats:.0f} MB")
    return int(peak > TARGET_MB)


if __name__ == "__main__":
    sys.exit(main())
