"""Memory and time of every head on one whole slide: a bag of 100,000 patches with 1024 features.

    python benchmarks/head_inference.py

Every head runs in its own process, as in evaluation: without gradients, with a mask. Its extra memory is the peak minus
the memory held just before, which includes features and weights. It needs Linux and an otherwise idle machine, and takes
about ten minutes on two cores, nearly all of them for ABMILX, whose time grows with N². If there is a CUDA device, the
heads are measured there too. The exit status is 1 if a head needs more memory than allowed.
"""

import json
import resource
import subprocess
import sys
import time

import torch
from head_memory import resident_bytes

from e2e_abmilx.heads import (
    ABMIL,
    ABMILX,
    CLAM,
    DSMIL,
    DTFD,
    RRTMIL,
    BagHead,
    GatedABMIL,
    MaxPool,
    MeanMLP,
    MeanPool,
    MultiBranchCLAM,
    TransMIL,
)

PATCHES, FEATURES, OUTPUTS = 100_000, 1024, 2
HEADS: dict[str, type[BagHead]] = {
    head.__name__: head
    for head in (
        MeanPool,
        MeanMLP,
        MaxPool,
        ABMIL,
        GatedABMIL,
        CLAM,
        MultiBranchCLAM,
        DSMIL,
        DTFD,
        TransMIL,
        RRTMIL,
        ABMILX,
    )
}
GIGABYTE_TARGET = 3.0


def measure(name: str, device: str) -> dict[str, float]:
    """Return the parameters of a head, and the seconds and extra gigabytes for one bag."""
    torch.manual_seed(0)
    head = HEADS[name](FEATURES, OUTPUTS).to(device).eval()
    features = torch.randn(1, PATCHES, FEATURES, device=device)
    mask = torch.ones(1, PATCHES, dtype=torch.bool, device=device)
    with torch.inference_mode():
        if device == "cuda":
            head.attend(features, mask)  # loads the kernels
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if device == "cuda" else resident_bytes()
        start = time.perf_counter()
        output = head.attend(features, mask)
        total = float(output.attention.sum()) / output.attention.shape[1]  # waits for the device
        seconds = time.perf_counter() - start
    assert abs(total - 1) < 1e-3, f"the attention of {name} sums to {total}"
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parameters = sum(parameter.numel() for parameter in head.parameters())
    return {"parameters": parameters, "seconds": seconds, "gigabytes": (peak - before) / 1e9}


def main() -> int:
    """Measure and print all heads; report those that need too much memory."""
    missed = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
        print(f"{device}{threads}: one bag of {PATCHES:,} x {FEATURES} features, float32")
        print(f"{'':16}{'parameters':>12}{'seconds':>10}{'extra GB':>10}{'allowed':>9}")
        for name in HEADS:
            command = [sys.executable, __file__, name, device]
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(
                f"{name:16}{result['parameters']:12,}{result['seconds']:10.2f}{result['gigabytes']:10.2f}"
                f"{GIGABYTE_TARGET:9.1f}",
                flush=True,
            )
            if result["gigabytes"] > GIGABYTE_TARGET:
                missed.append(f"{name} on {device}")
    print(f"Missed: {', '.join(missed)}" if missed else "All targets met.")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    print(json.dumps(measure(*sys.argv[1:])))
