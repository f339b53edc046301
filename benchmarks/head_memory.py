"""Memory and time of ABMILX on one large bag, compared with attention with a one-column value.

    python benchmarks/head_memory.py

The authors' A+ calls ``F.scaled_dot_product_attention`` with A as a value with one column. No fused kernel accepts that,
so PyTorch falls back to a kernel that holds N×N numbers per head, about 19 GB for the bag below. To limit the memory, the
two ways to compute U·A are compared on half of the heads (10 GB); all other rows run the whole head. Every run has its
own process; its extra memory is the peak minus the memory held just before, which includes inputs and weights. Of the
compared rows the fastest of three runs counts. It needs Linux and an otherwise idle machine, because the one-column value
is limited by memory bandwidth and ours by the processor, and takes about two minutes on two cores. The exit status is 1
if a target is missed.
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

from e2e_abmilx.heads.abmilx import ABMILX, _propagate

FEATURES, HIDDEN, HEADS, OUTPUTS = 1024, 512, 8, 2
PATCHES = 16_384


def abmilx(device: str) -> ABMILX:
    """Build the measured head, in evaluation mode."""
    torch.manual_seed(0)
    return ABMILX(FEATURES, OUTPUTS, hidden_features=HIDDEN, num_heads=HEADS).to(device).eval()


def forward(num_patches: int, device: str = "cpu", *, masked: bool = False) -> Callable[[], object]:
    """Return a call that computes the logits of one bag without gradients."""
    head, features = abmilx(device), torch.randn(1, num_patches, FEATURES, device=device)
    mask = torch.arange(num_patches, device=device)[None] < num_patches - 100 if masked else None

    def run() -> Tensor:
        with torch.inference_mode():
            return head(features, mask)

    return run


def training_step(num_patches: int, device: str = "cpu") -> Callable[[], object]:
    """Return a call of forward and backward pass, including the gradient of the features, as in end-to-end training."""
    head = abmilx(device)
    features = torch.randn(1, num_patches, FEATURES, device=device, requires_grad=True)
    return lambda: head(features).sum().backward()


def refinement(num_patches: int, num_heads: int, *, one_column: bool) -> Callable[[], object]:
    """Return a call that computes U·A alone, as ABMILX does or with A as a value with one column."""
    query, key = torch.randn(2, 1, num_heads, num_patches, HIDDEN // HEADS)
    scores = torch.randn(1, num_heads, num_patches)

    def run() -> Tensor:
        with torch.inference_mode():
            if one_column:
                return F.scaled_dot_product_attention(query, key, scores.unsqueeze(-1))
            return _propagate(query, key, scores, None)

    return run


ONE_COLUMN, OURS = "U·A with a one-column value, half of the heads", "U·A as ABMILX has it, half of the heads"
CPU_ROWS: dict[str, Callable[[], Callable[[], object]]] = {
    ONE_COLUMN: lambda: refinement(PATCHES, HEADS // 2, one_column=True),
    OURS: lambda: refinement(PATCHES, HEADS // 2, one_column=False),
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
    """Return the memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure_cpu(run: Callable[[], object]) -> dict[str, float]:
    """Return the seconds and the extra megabytes of one run."""
    before, start = resident_bytes(), time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "megabytes": (peak - before) / 1e6}


def measure_cuda(run: Callable[[], object]) -> dict[str, float]:
    """Return the same on the GPU, after a run that loads the kernels."""
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "megabytes": (torch.cuda.max_memory_allocated() - before) / 1e6}


def measure_in_own_process(row: str) -> dict[str, float]:
    """Run this script in a new process for one row."""
    runs = 3 if row in (ONE_COLUMN, OURS) else 1
    command = [sys.executable, __file__, row]
    outputs = [subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout for _ in range(runs)]
    return min((json.loads(output) for output in outputs), key=lambda result: float(result["seconds"]))


def main() -> int:
    """Measure and print all rows; report missed targets."""
    rows = [*CPU_ROWS, *(CUDA_ROWS if torch.cuda.is_available() else [])]
    print(
        f"D={FEATURES}, C={HIDDEN}, H={HEADS}, float32, N={PATCHES:,} unless named, {torch.get_num_threads()} threads"
    )
    print(f"{'':48}{'seconds':>9}{'extra MB':>10}{'allowed':>9}")
    results, missed = {}, []
    for row in rows:
        results[row] = result = measure_in_own_process(row)
        allowed = MEGABYTE_TARGETS.get(row)
        print(f"{row:48}{result['seconds']:9.2f}{result['megabytes']:10.0f}{allowed or '-':>9}", flush=True)
        if allowed and result["megabytes"] > allowed:
            missed.append(row)
    speed = results[ONE_COLUMN]["seconds"] / results[OURS]["seconds"]
    print(f"U·A is {speed:.1f} times as fast as with a one-column value (target {SPEED_TARGET:.0f}).")
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
