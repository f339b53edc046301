"""Memory of evaluating a slide of 40,000 patches on the CPU, from a real store to the prediction.

    python benchmarks/whole_slide.py [--patches 40000] [--patch_size 224]

The store is written first, in a process of its own. Then a process loads model and data, notes its memory, predicts,
and notes the peak; the readers' memory counts too. Beside it stands what the same slide is as one tensor of floats,
which is how the authors' release evaluates it. The encoder is cheap (a linear map of each patch's mean colours), so
that what is measured is the streaming. The exit status is 1 if the peak is above 1 GB. Linux only.
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
    """Mean colours of 4 × 4 fields, then a linear map."""

    num_features = 256

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(48, self.num_features)

    def forward(self, patches: Tensor) -> Tensor:
        """(M, 3, S, S) → (M, 256)."""
        return self.project(nn.functional.adaptive_avg_pool2d(patches, 4).flatten(1))


def write_slide(path: Path, patches: int, side: int) -> None:
    """Textures of many brightnesses, each encoded once and repeated."""
    rng = np.random.default_rng(0)
    variety = rng.integers(0, 256, (500, side // 8, side // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    columns = 256
    with StoreWriter(path, [0.5], patch_size=side, threads=2) as writer:
        for start in range(0, patches, 500):
            index = np.arange(start, min(start + 500, patches))
            coords = np.stack([index % columns, index // columns], 1) * side
            writer.write(variety[: len(index)], coords)


def own_and_readers() -> float:
    """Memory of this process and its readers, MB: what they share counts once, mapped library files not at all."""
    pids = ["self", *(str(child.pid) for child in multiprocessing.active_children())]
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # a reader that has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 1024


def predict(cache: Path, answer: "multiprocessing.Queue[tuple[float, float, int]]") -> None:
    """Predict the one slide of a cache."""
    torch.manual_seed(0)
    head = lambda width, outputs: ABMILX(width, outputs, hidden_features=256, num_heads=8)
    task = ClassificationTask(MeanColours(), head, 2)
    data = SlideDataModule(cache)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        precision="32-true",
    )
    before, peak, done = own_and_readers(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, own_and_readers())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    predictions = [prediction for prediction in trainer.predict(task, data) if prediction is not None]
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    answer.put((peak - before, seconds, predictions[0].output.attention.shape[-1]))


def main() -> int:
    """Write, predict, print, judge."""
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
        answer = context.Queue()
        reader = context.Process(target=predict, args=(Path(folder), answer))
        reader.start()
        peak, seconds, seen = answer.get()
        reader.join()
    assert seen == arguments.patches
    floats = arguments.patches * 3 * arguments.patch_size**2 * 4 / 1e6
    print(f"{seen} patches of {arguments.patch_size}²: {seconds:.0f} s, {seen / seconds:.0f} patches/s")
    print(
        f"peak above the loaded model {peak:.0f} MB (≤ {TARGET_MB}); as one tensor of floats {floats:.0f} MB"
    )
    return int(peak > TARGET_MB)


if __name__ == "__main__":
    sys.exit(main())
