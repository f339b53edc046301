"""Does the loop keep the device busy? Patches a second of a real fit, beside the same model on resident tensors.

    python benchmarks/training_loop.py [--side 112] [--patches_per_bag 64] [--batch_size 2] [--rounds 3]

The fit reads random bags from real stores with the number of workers that the library recommends, crops, normalises,
logs and steps, as ``e2e-abmilx fit`` does. The other side steps the same encoder, head, loss and optimizer on one
normalised tensor that lies on the device. They take turns, and the best round of each counts. The exit status is 1 if
the fit reaches less than 0.9 of the other. On a GPU, ``--side 224 --patches_per_bag 512 --batch_size 3`` is the
paper's setting for ResNet-18.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx import ABMILX, ClassificationTask, ResNetEncoder, SlideDataModule
from e2e_abmilx.augment import RandomCrops
from e2e_abmilx.callbacks import DataWait
from e2e_abmilx.cli import best_precision
from e2e_abmilx.encoders import encode_in_chunks
from e2e_abmilx.loaders import recommended_workers
from e2e_abmilx.store import StoreWriter

TARGET = 0.9
WARM_UP = 3  # steps that do not count
SLIDES, PATCHES = 16, 600


def write_cohort(folder: Path, side: int) -> None:
    """Slides of stained-looking noise, which takes as long to decode as tissue."""
    rng = np.random.default_rng(0)
    rows = ["slide,label,split"]
    for slide in range(SLIDES):
        blobs = np.kron(rng.random((PATCHES, side // 8, side // 8)) ** 4, np.ones((8, 8)))[..., None]
        pixels = (
            (1 - blobs) * (225, 150, 195) + blobs * (90, 60, 140) + rng.normal(0, 6, (PATCHES, side, side, 1))
        )
        patches = np.clip(pixels, 0, 255).astype(np.uint8)
        with StoreWriter(folder / f"s{slide}.zarr", [0.5, 1.0], patch_size=side, threads=2) as writer:
            for scale in (0, 1):
                writer.write(patches, np.zeros((PATCHES, 2), np.int64), scale)
        rows.append(f"s{slide},{slide % 2},{'val' if slide < 2 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(rows))


def model(side: int) -> ClassificationTask:
    """ResNet-18 and ABMILX, as in the recipes."""
    torch.manual_seed(0)
    return ClassificationTask(
        ResNetEncoder("resnet18", pretrained=False),
        lambda width, outputs: ABMILX(width, outputs, hidden_features=256, num_heads=8),
        2,
        augment=RandomCrops(side),
    )


class Clock(Callback):
    """When each batch was done."""

    def __init__(self) -> None:
        self.done: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Note the time, of work that is done."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.done.append(time.perf_counter())

    def seconds(self) -> float:
        """Seconds a step, after the warm-up."""
        return (self.done[-1] - self.done[WARM_UP - 1]) / (len(self.done) - WARM_UP)


def fit(folder: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds a step of a real fit, and the share of its time spent waiting."""
    data = SlideDataModule(
        folder,
        folder / "labels.csv",
        patches_per_bag=arguments.patches_per_bag,
        batch_size=arguments.batch_size,
    )
    clock = Clock()
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision=best_precision("auto"),
        max_steps=arguments.steps + WARM_UP,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[clock, DataWait()],
    )
    trainer.fit(model(arguments.side), data)
    return clock.seconds(), float(trainer.callback_metrics["train/data_wait"])


def resident(arguments: argparse.Namespace) -> float:
    """Seconds a step of the same model on tensors that are there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = model(arguments.side).to(device).train()
    optimizer = torch.optim.AdamW(task.parameters())
    bags, patches = arguments.batch_size, arguments.patches_per_bag
    pixels = torch.randn(bags * patches, 3, arguments.side, arguments.side, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    label = torch.arange(bags, device=device) % 2
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(best_precision("auto"))
    clock = Clock()
    for _ in range(arguments.steps + WARM_UP):
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            features = encode_in_chunks(task.encoder, pixels, task.encoder_chunk)
            logits = task.head(features.unflatten(0, (bags, patches)))
        loss = task.loss(logits.float(), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        clock.done.append(time.perf_counter())
    return clock.seconds()


def main() -> int:
    """Take turns, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--patches_per_bag", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    fits, floors = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), arguments.side // 8 * 8 + 16)
        for _ in range(arguments.rounds):
            fits.append(fit(Path(folder), arguments))
            floors.append(resident(arguments))
    each = arguments.patches_per_bag * arguments.batch_size
    ours, wait = min(fits)
    name = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"{name}, {best_precision('auto')}, ResNet-18 at {arguments.side} px, {each} patches a step")
    print(
        f"fit, {recommended_workers()} workers  {each / ours:8.0f} patches/s, {wait:.1%} of the time waiting"
    )
    print(f"resident tensors  {each / min(floors):8.0f} patches/s")
    share = min(floors) / ours
    print(f"share             {share:8.2f} (≥ {TARGET})")
    return int(share < TARGET)


if __name__ == "__main__":
    sys.exit(main())
