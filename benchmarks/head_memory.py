"""Memory and time of ABMILX on one large bag, against attention with a one-column value.

The authors' A+ calls ``F.scaled_dot_product_attention`` with A as a value of one column. No fused kernel takes that, so
PyTorch falls back to one that holds N×N numbers for every head, about 19 GB for the bag below. To spare the machine,
that side runs head after head, which needs an eighth of the memory and is no slower; only this call is timed, whereas
ours is the whole head. Every row is a process of its own; its extra memory is its peak less what it held just before,
inputs and weights included. Linux only.

Run ``python benchmarks/head_memory.py``: about two minutes on two cores. The exit status is 1 if a target is missed.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from e2e_abmilx.heads import ABMILX

FEATURES, HIDDEN, HEADS, OUTPUTS = 1024, 512, 8, 2
PATCHES = 16_384


def abmilx(device: str) -> ABMILX:
    """The head that is measured, in evaluation mode."""
    torch.manual_seed(0)
    return ABMILX(FEATURES, OUTPUTS, hidden_features=HIDDEN, num_heads=HEADS).to(device).eval()


def forward(num_patches: int, device: str = "cpu", *, masked: bool = False) -> Callable[[], object]:
    """Logits of one bag without gradient."""
    head, features = abmilx(device), torch.randn(1, num_patches, FEATURES, device=device)
    mask = torch.arange(num_patches, device=device)[None] < num_patches - 100 if masked else None

    def run() -> Tensor:
        with torch.inference_mode():
            return head(features, mask)

    return run


def training_step(num_patches: int, device: str = "cpu") -> Callable[[], object]:
    """Forward and backward, the features' gradient included, as end-to-end training needs."""
    head = abmilx(device)
    features = torch.randn(1, num_patches, FEATURES, device=device, requires_grad=True)
    return lambda: head(features).sum().backward()


def one_column_value(num_patches: int) -> Callable[[], object]:
    """Only U·A, one head after the other, with A as a value of one column."""
    query, key = torch.randn(2, HEADS, 1, 1, num_patches, HIDDEN // HEADS)
    scores = torch.randn(HEADS, 1, 1, num_patches, 1)

    def run() -> None:
        with torch.inference_mode():
            for head in range(HEADS):
                F.scaled_dot_product_attention(query[head], key[head], scores[head])

    return run


CPU_ROWS: dict[str, Callable[[], Callable[[], object]]] = {
    "one-column value, head by head": lambda: one_column_value(PATCHES),
    "ABMILX forward": lambda: forward(PATCHES),
    "ABMILX forward, masked": lambda: forward(PATCHES, masked=True),
    "ABMILX forward + backward": lambda: training_step(PATCHES),
}
CUDA_ROWS: dict[str, Callable[[], Callable[[], object]]] = {
    "ABMILX forward, N=100,000, CUDA": lambda: forward(100_000, "cuda"),
    "ABMILX forward, N=100,000, masked, CUDA": lambda: forward(100_000, "cuda", masked=True),
    "ABMILX forward + backward, N=20,000, CUDA": lambda: training_step(20_000, "cuda"),
}
MEGABYTE_TARGETS = {
    "ABMILX forward": 300,
    "ABMILX forward, masked": 300,
    "ABMILX forward + backward": 1500,
    "ABMILX forward, N=100,000, CUDA": 2000,
    "ABMILX forward, N=100,000, masked, CUDA": 2000,
}
SPEED_TARGET = 8.0  # times faster than the one-column value


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure_cpu(run: Callable[[], object]) -> dict[str, float]:
    """Seconds of one run and the megabytes that it needed on top."""
    before, start = resident_bytes(), time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "megabytes": (peak - before) / 1e6}


def measure_cuda(run: Callable[[], object]) -> dict[str, float]:
    """The same on the GPU, after one run that loads the kernels."""
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "megabytes": (torch.cuda.max_memory_allocated() - before) / 1e6}


def measure_in_own_process(row: str) -> dict[str, float]:
    """Call this script for one row."""
    output = subprocess.run(
        [sys.executable, __file__, row], check=True, capture_output=True, text=True
    ).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> int:
    """Measure all rows, print them, and say which targets were missed."""
    rows = [*CPU_ROWS, *(CUDA_ROWS if torch.cuda.is_available() else [])]
    print(
        f"D={FEATURES}, C={HIDDEN}, H={HEADS}, float32, N={PATCHES:,} unless named, {torch.get_num_threads()} threads"
    )
    print(f"{'':44}{'seconds':>9}{'extra MB':>10}{'allowed':>9}")
    results, missed = {}, []
    for row in rows:
        results[row] = result = measure_in_own_process(row)
        allowed = MEGABYTE_TARGETS.get(row)
        print(f"{row:44}{result['seconds']:9.2f}{result['megabytes']:10.0f}{allowed or '-':>9}", flush=True)
        if allowed and result["megabytes"] > allowed:
            missed.append(row)
    speed = results["one-column value, head by head"]["seconds"] / results["ABMILX forward"]["seconds"]
    print(
        f"The whole head is {speed:.1f} times as fast as the one-column value alone (target {SPEED_TARGET:.0f})."
    )
    if speed < SPEED_TARGET:
        missed.append("speed")
    print(f"Missed: {', '.join(missed)}" if missed else "All targets met.")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    name = sys.argv[1]
    measured = measure_cpu(CPU_ROWS[name]()) if name in CPU_ROWS else measure_cuda(CUDA_ROWS[name]())
    print(json.dumps(measured))
