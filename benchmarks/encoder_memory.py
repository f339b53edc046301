"""Peak memory of a training step of the encoder with gradient checkpointing, by size of bag and chunk.

    python benchmarks/encoder_memory.py [--side 64]

Each cell has its own process: patches pass through a ResNet-18 in chunks, the mean feature is minimised, and the memory
of the step in addition to model and patches is printed in MB. "kept" is one pass of the whole bag that keeps all
activations. On a GPU the peak of the allocator counts, on a CPU the peak of the process (Linux only).
"""

import argparse
import gc
import multiprocessing
from pathlib import Path

import torch

from e2e_abmilx.encoders import ResNetEncoder, encode_in_chunks

BAGS = (128, 256, 512, 1024, 2048)
CHUNKS = (32, 64, 128, 256, 512)
MOST_KEPT = 512  # patches; to keep the activations of more would take 10 GB


def memory_mb(field: str) -> float:
    """Return a memory field of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def step(bag: int, chunk: int, side: int, answer: "multiprocessing.Queue[float]") -> None:
    """Run one step; ``chunk`` 0 keeps the activations of the whole bag."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    encoder = ResNetEncoder("resnet18", pretrained=False).to(device).train()
    patches = torch.randn(bag, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    for parameter in encoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    # the first pass allocates memory that does not count
    encode_in_chunks(encoder, patches[:8], 8, checkpoint=True).mean().backward()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = memory_mb("VmRSS")
    encode_in_chunks(encoder, patches, chunk or bag, checkpoint=chunk > 0).mean().backward()
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else memory_mb("VmHWM")
    answer.put(peak - before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64)
    side = parser.parse_args().side
    context = multiprocessing.get_context("spawn")
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{name}, float32, ResNet-18 at {side} px: MB above model and patches\n")
    print("bag \\ chunk" + "".join(f"{chunk:8d}" for chunk in CHUNKS) + "    kept")
    for bag in BAGS:
        cells = []
        for chunk in (*CHUNKS, 0):
            if chunk > bag or (chunk == 0 and bag > MOST_KEPT):
                cells.append("       –")
                continue
            answer = context.Queue()
            process = context.Process(target=step, args=(bag, chunk, side, answer))
            process.start()
            cells.append(f"{answer.get():8.0f}")
            process.join()
        print(f"{bag:11d}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
