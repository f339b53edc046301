"""Throughput of a fit, compared with the same model on a tensor on the device: does the loop keep the device busy?

    python benchmarks/training_loop.py [--side 112] [--patches_per_bag 64] [--batch_size 2] [--rounds 3]

The fit reads random bags from stores with the recommended number of workers, crops, normalises, logs and steps, as
``e2e-abmilx fit`` does. The comparison runs the same encoder, head, loss and optimizer on one normalised tensor on the
device. Both are measured alternately, and the best round of each counts. The exit status is 1 if the fit reaches less
than 0.9 of the throughput of the comparison. On a GPU, ``--side 224 --patches_per_bag 512 --batch_size 3`` is the paper's
setting for ResNet-18.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from gpu_sections.loop import Loop, fit
from gpu_sections.measure import seconds
from gpu_sections.model import BareStep, Batch, make_task
from gpu_sections.stores import write_cohort

from e2e_abmilx.training.precision import best_precision

TARGET = 0.9
WARM_UP = 3  # steps that do not count


def main() -> int:
    """Measure both alternately, print the result and check the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--patches_per_bag", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = best_precision("auto")
    side = arguments.side
    batch = Batch("resnet18", arguments.batch_size, arguments.patches_per_bag, side, side // 8 * 8 + 16)
    loops: list[Loop] = []
    floors = []
    with tempfile.TemporaryDirectory() as folder:
        labels = write_cohort(
            Path(folder, "cache"),
            cases=batch.bags * (WARM_UP + arguments.steps),
            patches=batch.patches,
            side=batch.stored,
        )
        for _ in range(arguments.rounds):
            loops.append(
                fit(
                    make_task(batch),
                    labels,
                    batch,
                    device=device.type,
                    precision=precision,
                    steps=arguments.steps,
                    warm_up=WARM_UP,
                )
            )
            step = BareStep(make_task(batch), batch, device, precision)
            floors.append(seconds(step, device, times=arguments.steps, warm_up=WARM_UP))
    ours = min(loops, key=lambda loop: loop.seconds)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, {precision}, ResNet-18 at {side} px, {batch.size} patches a step")
    rate = batch.size / ours.seconds
    print(f"fit, {ours.workers} workers  {rate:8.0f} patches/s, {ours.waiting:.1%} of the time waiting")
    print(f"resident tensors  {batch.size / min(floors):8.0f} patches/s")
    ratio = min(floors) / ours.seconds
    print(f"ratio             {ratio:8.2f} (≥ {TARGET})")
    return int(ratio < TARGET)


if __name__ == "__main__":
    sys.exit(main())
