"""Variants of the bare step: channels-last weights, cuDNN's benchmark mode, and torch.compile."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from gpu_sections.measure import prepare, seconds, synchronize
from gpu_sections.model import BATCHES, TINY_BATCHES, BareStep, Batch, make_task
from gpu_sections.rows import Rows
from gpu_sections.settings import Settings

PRECISION = "bf16-mixed"


class Variant(NamedTuple):
    """A way to run the encoder."""

    channels_last: bool = False
    compiled: bool = False
    benchmark: bool = False

    def __str__(self) -> str:
        parts = {
            "channels-last weights": self.channels_last,
            "torch.compile": self.compiled,
            "cudnn.benchmark": self.benchmark,
        }
        return " + ".join(name for name, on in parts.items() if on) or "default"


PLAIN = Variant()
#: Compilation takes longest and comes last, because it may be stopped.
CHEAP = (PLAIN, Variant(channels_last=True), Variant(benchmark=True))
COMPILED = (Variant(compiled=True), Variant(channels_last=True, compiled=True))


def run(settings: Settings, rows: Rows) -> None:
    """Measure each variant of each encoder."""
    device = prepare(settings.device)
    batches = TINY_BATCHES[:1] if settings.tiny else BATCHES
    plain: dict[Batch, float] = {}
    longest_s = 0.0  # 1.5 times the slowest measurement
    rows.note(
        "The normalised batch is on the device; pixels are channels last in all runs. first step: includes compiling or"
        " the choice of algorithms."
    )
    if settings.tiny:
        rows.note("torch.compile uses the backend aot_eager, which compiles no kernels.")
    for variants in (CHEAP, COMPILED[:1], COMPILED[1:]):
        for batch in batches:
            for variant in variants:
                if variant.compiled and settings.seconds_left() < longest_s:
                    rows.note(f"Left out for lack of time: {batch.encoder}, {variant}.")
                    continue
                started = time.monotonic()
                with rows.guard(f"{batch.encoder}, {variant}"):
                    _measure(rows, batch, variant, plain, device, tiny=settings.tiny)
                longest_s = max(longest_s, 1.5 * (time.monotonic() - started))


def _measure(
    rows: Rows, batch: Batch, variant: Variant, plain: dict[Batch, float], device: torch.device, *, tiny: bool
) -> None:
    task = make_task(batch).to(device)
    if variant.channels_last:
        task.encoder.to(memory_format=torch.channels_last)
    if variant.compiled:
        torch._dynamo.reset()
        task.encoder.compile(backend="aot_eager" if tiny else "inductor")
    torch.backends.cudnn.benchmark = variant.benchmark
    step = BareStep(task, batch, device, PRECISION)
    first_s = _timed(step, device)
    times, warm_up = (2, 1) if tiny else (20, 5)
    each = seconds(step, device, times=times, warm_up=warm_up)
    torch.backends.cudnn.benchmark = False
    if variant == PLAIN:
        plain[batch] = each
    gain = 100 * (plain[batch] / each - 1) if batch in plain and variant != PLAIN else None
    rows.add(
        {
            "encoder": batch.encoder,
            "variant": str(variant),
            "patches/s": batch.size / each,
            "gain %": gain,
            "first step s": first_s,
        }
    )


def _timed(run: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started
