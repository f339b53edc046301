"""Whole slides: the time from a store to the prediction, and the computing time in it."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from e2e_abmilx import ClassificationTask, SlideDataModule
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, Target, collate, make_bag
from gpu_sections.measure import Peak, prepare, seconds
from gpu_sections.model import BATCHES, TINY_BATCHES, Batch, autocast, make_task
from gpu_sections.rows import Rows
from gpu_sections.settings import Settings
from gpu_sections.stores import repeat_slide, textures, write_slide

PRECISION = "bf16-mixed"
CHUNK = 256  # the default of the data module
SLIDES = 4  # of the larger case; each has as many patches as the smaller case


class Cohort(NamedTuple):
    """One case in a cache of its own."""

    data: SlideDataModule
    patches: int


def run(settings: Settings, rows: Rows) -> None:
    """Measure both encoders on a case of one slide and on a case of four."""
    device = prepare(settings.device)
    batches, patches = (TINY_BATCHES[:1], 60) if settings.tiny else (BATCHES, 10_000)
    rows.note(
        "predict: all of trainer.predict, including the start of the data loading processes; after first batch: without"
        " it. computing: the same chunks, already on the device as uint8. The paper states 1.7 s for 10,000 patches."
    )
    rows.note(f"{SLIDES * patches:,} patches are one case of {SLIDES} slides, which is one bag for the head.")
    cohorts = _write(settings.scratch, patches, batches[0].stored)
    for batch in batches:
        for cohort in cohorts:
            with rows.guard(f"{batch.encoder}, {cohort.patches:,} patches"):
                _measure(rows, batch, cohort, device)


def _write(scratch: Path, patches: int, side: int) -> list[Cohort]:
    one, four = scratch / "one", scratch / "four"
    write_slide(one / "s0.zarr", patches, side, mpp=(0.5,))
    names = [f"s{number}" for number in range(SLIDES)]
    repeat_slide(one / "s0.zarr", [four / f"{name}.zarr" for name in names])
    labels = four / "labels.csv"
    labels.write_text("\n".join(["slide,case,label,split", *(f"{name},c0,0,test" for name in names)]), encoding="utf-8")
    return [
        Cohort(SlideDataModule(one, eval_chunk_size=CHUNK), patches),
        Cohort(SlideDataModule(four, labels, eval_chunk_size=CHUNK, classes=["0", "1"]), SLIDES * patches),
    ]


def _measure(rows: Rows, batch: Batch, cohort: Cohort, device: torch.device) -> None:
    task = make_task(batch).to(device).eval()
    chunks = _chunks(cohort.patches, batch.stored, device)
    with Peak(device) as computing_peak:
        computing_s = seconds(lambda: _compute(task, chunks, device), device, times=1, warm_up=1)
    chunks.clear()
    first = FirstBatch()
    with Peak(device) as peak:
        started = time.perf_counter()
        _predict(task, cohort.data, device.type, first)
        predict_s = time.perf_counter() - started
    assert task.predicted_patches is not None
    seen = task.predicted_patches.output.attention.shape[-1]
    assert seen == cohort.patches, f"{seen} of {cohort.patches} patches were seen"
    rows.add(
        {
            "encoder": batch.encoder,
            "patches": cohort.patches,
            "predict s": predict_s,
            "after first batch s": started + predict_s - first.time_s,
            "peak GB": peak.gb,
            "computing s": computing_s,
            "its peak GB": computing_peak.gb,
            "its patches/s": cohort.patches / computing_s,
        }
    )


class FirstBatch(Callback):
    """Record the time of the first batch."""

    time_s = 0.0

    def on_predict_batch_start(self, *_: object) -> None:
        """Record the time, once."""
        self.time_s = self.time_s or time.perf_counter()


def _predict(task: ClassificationTask, data: SlideDataModule, device: str, first: FirstBatch) -> list[Any]:
    trainer = Trainer(
        accelerator=device,
        devices=1,
        precision=PRECISION,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[first],
    )
    predictions = trainer.predict(task, data) or []
    return [prediction for prediction in predictions if prediction is not None]


def _chunks(patches: int, side: int, device: torch.device) -> list[Bag]:
    """Return chunks as the loader makes them; a few are repeated, since 40,000 patches would take 8 GB."""
    variety = [_chunk(CHUNK, side, device) for _ in range(min(4, patches // CHUNK))]
    full = [variety[number % len(variety)] for number in range(patches // CHUNK)]
    rest = patches % CHUNK
    return [*full, _chunk(rest, side, device)] if rest else full


def _chunk(patches: int, side: int, device: torch.device) -> Bag:
    pixels = torch.from_numpy(textures(min(16, patches), side)).repeat(-(-patches // 16), 1, 1, 1)[:patches]
    positions = torch.zeros(patches, dtype=torch.int64)
    bag = make_bag(Case("c0", ("s0",)), Target(), pixels, positions, positions[:, None].expand(-1, 2), last=False)
    moved: Bag = move_data_to_device(collate([bag]), device)
    return moved


def _compute(task: ClassificationTask, chunks: list[Bag], device: torch.device) -> Tensor:
    with torch.inference_mode(), autocast(device, PRECISION):
        features = [task.encode(chunk) for chunk in chunks]
        return task.head.attend(torch.cat(features, dim=1)).logits
