"""torch.compile: the bare step with a compiled encoder, compared with the plain one."""

import time
from collections.abc import Callable

import torch

from gpu_sections.measure import prepare, seconds, synchronize
from gpu_sections.model import BATCHES, TINY_BATCHES, BareStep, Batch, make_task
from gpu_sections.rows import Rows
from gpu_sections.settings import Settings

PRECISION = "bf16-mixed"


def run(settings: Settings, rows: Rows) -> None:
    """Measure the plain and the compiled step of each encoder."""
    device = prepare(settings.device)
    rows.note("The normalised batch is on the device. first step: includes compiling or the choice of algorithms.")
    if settings.tiny:
        rows.note("torch.compile uses the backend aot_eager, which compiles no kernels.")
    for batch in TINY_BATCHES[:1] if settings.tiny else BATCHES:
        plain = None
        for compiled in (False, True):
            with rows.guard(f"{batch.encoder}, {'compiled' if compiled else 'plain'}"):
                plain = _measure(rows, batch, plain, device, compiled=compiled, tiny=settings.tiny)


def _measure(
    rows: Rows, batch: Batch, plain: float | None, device: torch.device, *, compiled: bool, tiny: bool
) -> float:
    """Measure one way; return its seconds per step."""
    task = make_task(batch).to(device)
    if compiled:
        torch._dynamo.reset()
        task.encoder.compile(backend="aot_eager" if tiny else "inductor")
    step = BareStep(task, batch, device, PRECISION)
    first_s = _timed(step, device)
    times, warm_up = (2, 1) if tiny else (20, 5)
    each = seconds(step, device, times=times, warm_up=warm_up)
    rows.add(
        {
            "encoder": batch.encoder,
            "compiled": "yes" if compiled else "no",
            "patches/s": batch.size / each,
            "gain %": 100 * (plain / each - 1) if plain else None,
            "first step s": first_s,
        }
    )
    return each


def _timed(run: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started
