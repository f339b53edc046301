"""Training throughput: the loop from a store, compared with the bare step and with gradient checkpointing."""

import gc
from pathlib import Path
from typing import NamedTuple

import torch

from gpu_sections.loop import Loop, fit
from gpu_sections.measure import Peak, prepare, seconds
from gpu_sections.model import BATCHES, TINY_BATCHES, BareStep, Batch, make_task
from gpu_sections.rows import Cell, Rows
from gpu_sections.settings import Settings
from gpu_sections.stores import write_cohort

LOOP_TARGET = 0.9  # of the bare step
R18_TARGET = 12_000  # patches/s on an H100: the paper's BRCA recipe in 42 minutes
MEMORY_TARGET = 1 / 3  # of the memory without gradient checkpointing
CHECKPOINT_CHUNK = 128  # patches; the recipe's chunk of 512 holds a whole batch of ResNet-50


class Steps(NamedTuple):
    """Numbers of measured steps, and of warm-up steps."""

    loop: int  # more than the 14 or 30 batches that are ready at the start
    bare: int
    gradient_checkpointing: int
    warm_up: int


FULL, TINY = Steps(45, 15, 20, 8), Steps(2, 2, 2, 1)


def run(settings: Settings, rows: Rows) -> None:
    """Measure both encoders in bf16, without and with gradient checkpointing, then the same in fp16."""
    device = prepare(settings.device)
    batches, steps = (TINY_BATCHES, TINY) if settings.tiny else (BATCHES, FULL)
    labels = write_cohort(
        settings.scratch / "cache",
        cases=max(batch.bags for batch in batches) * (steps.loop + steps.warm_up),
        patches=max(batch.patches for batch in batches),
        side=batches[0].stored,
    )
    rows.note("waiting: fraction of the loop's time in which the device was idle because no batch was ready.")
    rows.note("All stores are links to one store in the page cache: the cost of a slow disk is not included.")
    for precision in ("bf16-mixed", "16-mixed" if device.type == "cuda" else "32-true"):
        comparison = _Comparison(device, rows, labels, steps, precision)
        for batch in batches:
            with rows.guard(f"{batch.encoder}, {precision}"):
                comparison.loop_and_bare_step(batch)
        for batch in batches:
            with rows.guard(f"{batch.encoder}, {precision}, gradient_checkpointing"):
                comparison.gradient_checkpointing(batch)


class _Comparison:
    """The measurements of one precision."""

    def __init__(self, device: torch.device, rows: Rows, labels: Path, steps: Steps, precision: str) -> None:
        self.device, self.rows, self.labels = device, rows, labels
        self.steps, self.precision = steps, precision
        self._kept: dict[Batch, Loop] = {}

    def loop_and_bare_step(self, batch: Batch) -> None:
        """Measure the bare step, and the loop relative to it."""
        bare, peak_gb = self._bare(batch)
        self._add(batch, "bare step", bare, peak_gb)
        loop = self._kept[batch] = self._fit(batch, self.steps.loop)
        ratio = bare / loop.seconds
        self._add_loop(batch, "loop", loop, ratio)
        name = f"{batch.encoder}, {self.precision}"
        self._target(f"{name}, loop / bare step", ratio, at_least=LOOP_TARGET)
        if batch.encoder == "resnet18":
            self._target(f"{name}, patches/s", batch.size / loop.seconds, at_least=R18_TARGET)

    def gradient_checkpointing(self, batch: Batch) -> None:
        """Measure the loop with gradient checkpointing, and its memory relative to the loop without."""
        loop = self._fit(batch, self.steps.gradient_checkpointing, gradient_checkpointing=True)
        self._add_loop(batch, f"loop, gradient_checkpointing, chunks of {CHECKPOINT_CHUNK}", loop, None)
        kept = self._kept.get(batch)
        if kept and kept.peak_gb and loop.peak_gb:
            ratio = loop.peak_gb / kept.peak_gb
            name = f"{batch.encoder}, {self.precision}, memory with / without gradient_checkpointing"
            self._target(name, ratio, at_most=MEMORY_TARGET)

    def _bare(self, batch: Batch) -> tuple[float, float | None]:
        _empty(self.device)
        step = BareStep(make_task(batch), batch, self.device, self.precision)
        with Peak(self.device) as peak:
            each = seconds(step, self.device, times=self.steps.bare, warm_up=self.steps.warm_up)
        return each, peak.gb

    def _fit(self, batch: Batch, steps: int, *, gradient_checkpointing: bool = False) -> Loop:
        _empty(self.device)
        chunk = {"train_chunk_size": CHECKPOINT_CHUNK} if gradient_checkpointing else {}
        return fit(
            make_task(batch, gradient_checkpointing=gradient_checkpointing, **chunk),
            self.labels,
            batch,
            device=self.device.type,
            precision=self.precision,
            steps=steps,
            warm_up=self.steps.warm_up,
        )

    def _add_loop(self, batch: Batch, what: str, loop: Loop, ratio: float | None) -> None:
        more: dict[str, Cell] = {
            "readers": loop.workers,
            "waiting %": 100 * loop.waiting,
            "GPU busy %": loop.busy,
            "loop / bare": ratio,
        }
        self._add(batch, what, loop.seconds, loop.peak_gb, more)

    def _add(
        self, batch: Batch, what: str, each: float, peak_gb: float | None, more: dict[str, Cell] | None = None
    ) -> None:
        self.rows.add(
            {
                "encoder": batch.encoder,
                "batch": f"{batch.bags} × {batch.patches}",
                "precision": self.precision,
                "run": what,
                "patches/s": batch.size / each,
                "peak GB": peak_gb,
                **(more or {}),
            }
        )

    def _target(self, name: str, value: float, **bound: float) -> None:
        if self.steps != TINY:
            self.rows.target(name, value, **bound)


def _empty(device: torch.device) -> None:
    """Release the memory of the previous run."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
