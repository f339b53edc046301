"""The modelled peak is that of real steps of other sizes, by PyTorch's own profiler."""

import copy
from pathlib import Path

import pytest
import torch
from plans import read_slides, write_features
from torch.profiler import ProfilerActivity, profile

from e2e_abmilx.study.plan_cohort import PlannedCohort, read_planned_cohort
from e2e_abmilx.study.plan_config import Config, read_config
from e2e_abmilx.study.plan_memory import (
    MemoryModel,
    count_bytes,
    gpu_budget,
    in_memory,
    make_random_bag,
    measure_memory,
)


def _profile(config: Config, cohort: PlannedCohort, patches: int, side: int | None, chunk: int) -> float:
    """Return the peak of three steps, by what the allocator hands out."""
    task = copy.deepcopy(config.task)
    task.train_chunk_size = chunk
    bag = make_random_bag(config, cohort, patches, side)
    trainer = config.make_trainer(max_steps=3, limit_val_batches=0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.fit(task, in_memory([bag] * 3))
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    changes = torch.tensor([event.nbytes() for event in events], dtype=torch.float64)
    held = count_bytes([*task.parameters(), *task.buffers(), bag.patches])  # type: ignore[list-item]
    return held + float(changes.cumsum(0).max())


@pytest.mark.parametrize(
    ("words", "patches", "chunk"),
    [
        ([], 40, 512),
        (["--trainer.callbacks+=EMAWeightAveraging", "--model.optimizer=torch.optim.SGD",
          "--model.optimizer.lr=0.01", "--model.optimizer.momentum=0.9"], 30, 512),
        (["--model.gradient_checkpointing=true"], 60, 20),
    ],
)  # fmt: skip
def test_peak_of_training_slides(
    tmp_path: Path, cohort: Path, stores: Path, words: list[str], patches: int, chunk: int
) -> None:
    config = read_slides(tmp_path, cohort, stores, "--trainer.precision=32-true", "--data.batch_size=2", *words)
    planned = read_planned_cohort(config.data)
    model = measure_memory(config, planned, 64)
    found = _profile(config, planned, patches, 64, chunk)
    assert model.peak(2 * patches, chunk) == pytest.approx(found, rel=0.1)
    trained = count_bytes([parameter for parameter in config.task.parameters() if parameter.requires_grad])
    sgd = any("SGD" in word for word in words)
    assert model.gradients == trained
    assert model.optimizer == pytest.approx(trained * (1 if sgd else 2), rel=0.01)
    assert model.average == (model.weights if sgd else 0)


def test_peak_of_training_features(tmp_path: Path) -> None:
    config = read_config([*write_features(tmp_path, width=64), "--data.batch_size=2"])
    cohort = read_planned_cohort(config.data)
    model = measure_memory(config, cohort, None)
    assert model.peak(2000, 512) == pytest.approx(_profile(config, cohort, 1000, None, 512), rel=0.1)


def test_what_fits_a_gpu_takes_no_more_than_the_budget() -> None:
    whole = MemoryModel(10, 10, 20, 0, 50.0, 2.0, 0.0, 1.0, checkpointing=False)
    assert whole.most_patches(450, 512) == 200
    assert whole.peak_on_gpu(200, 512) == 450
    assert (whole.largest_chunk(450, 200), whole.largest_chunk(449, 200)) == (200, 0)
    chunked = MemoryModel(10, 10, 20, 0, 50.0, 0.5, 2.0, 1.0, checkpointing=True)
    most = chunked.most_patches(450, 100)
    assert chunked.peak_on_gpu(most, 100) <= 450 < chunked.peak_on_gpu(most + 100, 100)
    assert chunked.most_patches(100, 100) == 20  # fewer than a chunk
    assert chunked.largest_chunk(450, 400) == 100
    assert chunked.most_patches(45, 100) == 0


def test_the_context_of_cuda_and_a_tenth_are_kept_free() -> None:
    assert gpu_budget(24) == pytest.approx(0.9 * 23.4e9)
