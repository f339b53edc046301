"""A model of the memory of training, from small steps on the CPU.

The peak is linear in the patches of a batch M and, with gradient checkpointing, of a chunk c:

    peak = fixed + per_patch · M + per_chunk_patch · c

Without checkpointing the activations of all chunks are kept, and ``per_chunk_patch`` is 0. A single
chunk takes less, because the gradients of earlier chunks do not exist yet. The three numbers follow from
real optimizer steps on bags of random pixels, with the trainer's own precision and the weights' average of the config.
Every tensor counts, with the bag on the device, but not what an operation uses within itself.
"""

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from e2e_abmilx.data.bag import Bag, collate, make_bag
from e2e_abmilx.encoders import count_chunks
from e2e_abmilx.study.allocations import AllocationCounter
from e2e_abmilx.study.plan_cohort import PlannedCohort
from e2e_abmilx.study.plan_config import Config
from e2e_abmilx.tasks import BagTask

#: Bytes of a GPU that are not for tensors: CUDA's context, and a fraction for workspaces and fragments.
CONTEXT_BYTES = 600_000_000
MARGIN = 0.1

_TINY = 2  # patches per bag of the first step, which makes gradients and states


class MemoryModel(NamedTuple):
    """The memory of a training step, in bytes; the module states the equation.

    Attributes:
        weights: Weights and buffers.
        gradients: Of the trained weights.
        optimizer: The states that the optimizer keeps.
        average: The second set of weights of EMAWeightAveraging and its kind.
        fixed: The peak without patches.
        per_patch: Per patch of a batch.
        per_chunk_patch: Per patch of a chunk.
        per_eval_patch: Per patch that evaluation encodes at once.
        checkpointing: Whether gradient checkpointing is on.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    fixed: float
    per_patch: float
    per_chunk_patch: float
    per_eval_patch: float
    checkpointing: bool

    @property
    def held(self) -> int:
        """What is held between steps."""
        return self.weights + self.gradients + self.optimizer + self.average

    def peak(self, patches: float, chunk: int) -> float:
        """Return the peak of a training step with ``patches`` in a batch."""
        step = self.fixed + self.per_patch * patches + self.per_chunk_patch * _even(chunk, patches)
        return max(step, self.held)

    def peak_on_gpu(self, patches: float, chunk: int) -> float:
        """Return the peak on a GPU, where an optimizer step needs another copy of the trained weights for a moment."""
        return max(self.peak(patches, chunk), self.held + self.gradients)

    def eval_peak(self, patches: int) -> float:
        """Return the peak of evaluation, which holds the states of the training too; without the features of a case."""
        return self.held + self.per_eval_patch * patches

    def most_patches(self, budget: float, chunk: int) -> int:
        """Return the most patches of a batch that fit."""
        all_in_chunks = (budget - self.fixed - self.per_chunk_patch * chunk) / self.per_patch
        fits = (
            all_in_chunks if all_in_chunks >= chunk else (budget - self.fixed) / (self.per_patch + self.per_chunk_patch)
        )
        return max(0, int(fits)) if self.peak_on_gpu(0, chunk) <= budget else 0

    def largest_chunk(self, budget: float, patches: float) -> int:
        """Return the most patches of a chunk that fit; all of them without checkpointing if they fit."""
        if not self.per_chunk_patch:
            return int(patches) if self.peak_on_gpu(patches, int(patches)) <= budget else 0
        room = budget - self.fixed - self.per_patch * patches
        return max(0, min(int(patches), int(room / self.per_chunk_patch)))


def gpu_budget(gigabytes: float) -> float:
    """Return the bytes of a GPU that a plan may use for tensors."""
    return (gigabytes * 1e9 - CONTEXT_BYTES) * (1 - MARGIN)


def measure_memory(config: Config, cohort: PlannedCohort, side: int | None) -> MemoryModel:
    """Measure the memory of a task by small steps on the CPU; the task itself is not changed.

    Args:
        config: What is planned.
        cohort: Its cases; the first of the training split lend their targets.
        side: Side of a patch, pixels; None for features.
    """
    task = copy.deepcopy(config.task)
    task.compile_encoder = False  # which takes a minute, and nothing from the memory
    small = 128 if side is None else 8 if side <= 128 else 4  # patches of a bag
    bags = [make_random_bag(config, cohort, count, side) for count in (_TINY, small, 2 * small)]
    m = bags[1].mask.numel()
    chunked = task.gradient_checkpointing and side is not None
    chunk = m // 2 if chunked else 2 * m  # without checkpointing, the activations of all chunks are kept anyway
    steps = [(bags[0], m), (bags[1], chunk), (bags[2], chunk), *([(bags[2], m)] if chunked else [])]
    watch = _PeakOfSteps(task, [chunk for _, chunk in steps])
    trainer = config.make_trainer(
        [watch], accelerator="cpu", max_steps=len(steps), accumulate_grad_batches=1, limit_val_batches=0
    )
    with AllocationCounter([*task.parameters(), *task.buffers()]) as watch.counter, _quiet():
        trainer.fit(task, in_memory([bag for bag, _ in steps]))
    first, second, *third = watch.peaks[1:]
    per_patch = (second - first) / m
    per_chunk_patch = (third[0] - second) / (m - m // 2) if chunked else 0.0
    weights = count_bytes([*config.task.parameters(), *config.task.buffers()])
    states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    return MemoryModel(
        weights,
        count_bytes([parameter for parameter in config.task.parameters() if parameter.requires_grad]),
        count_bytes([value for value in states if isinstance(value, Tensor)]),
        len(config.averages) * weights,
        first - per_patch * m - per_chunk_patch * (m // 2),
        per_patch,
        per_chunk_patch,
        _measure_evaluation(config, bags[1:]),
        chunked,
    )


def make_random_bag(config: Config, cohort: PlannedCohort, patches: int, side: int | None) -> Bag:
    """Return a training batch with random pixels or features, of the size that the config states but at most two bags."""
    cases, targets = cohort.cases["train"], cohort.targets["train"]
    count = min(config.data.batch_size, 2, len(cases))
    return collate(
        [
            make_bag(
                case,
                target,
                _random(patches, side, config.task.encoder),
                torch.zeros(patches, dtype=torch.int64),
                torch.zeros(patches, 2, dtype=torch.int64),
                last=True,
            )
            for case, target in list(zip(cases, targets, strict=True))[:count]
        ]
    )


def _even(chunk: int, patches: float) -> float:
    """Return the patches of a chunk, since all chunks have nearly the same number."""
    return patches / count_chunks(math.ceil(patches), chunk) if patches else 0.0


def one_bag(batch: Bag) -> Bag:
    """Return a batch with its first bag only, as evaluation has them."""
    columns: dict[str, Any] = {
        name: value[:1].clone() for name, value in batch._asdict().items() if isinstance(value, Tensor)
    }
    columns |= {"cases": batch.cases[:1], "real": torch.arange(batch.mask.shape[1])}
    return batch._replace(**columns)


def in_memory(bags: Sequence[Bag]) -> DataLoader[Bag]:
    """Return a loader of batches that are ready."""
    return DataLoader(list(bags), batch_size=None, collate_fn=_unchanged)  # type: ignore[arg-type]


def count_bytes(tensors: Sequence[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _random(patches: int, side: int | None, encoder: nn.Module) -> Tensor:
    if side is None:
        return torch.randn(patches, int(encoder.num_features))  # type: ignore[arg-type]
    return torch.randint(256, (patches, side, side, 3), dtype=torch.uint8)


def _unchanged(bag: Bag) -> Bag:
    return bag


def _measure_evaluation(config: Config, bags: Sequence[Bag]) -> float:
    """Return the bytes per patch of an evaluation, from two sizes."""
    task = copy.deepcopy(config.task)
    single = [one_bag(bag) for bag in bags]
    watch = _PeakOfSteps(task, [])
    trainer = config.make_trainer([watch], accelerator="cpu")
    with AllocationCounter([*task.parameters(), *task.buffers()]) as watch.counter, _quiet():
        trainer.validate(task, in_memory(single), verbose=False)
    return (watch.peaks[1] - watch.peaks[0]) / (single[1].mask.numel() - single[0].mask.numel())


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings about loaders and metrics, which concern a few random patches only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _PeakOfSteps(Callback):
    """Note the peak of each step, and set the chunk of each."""

    def __init__(self, task: BagTask, chunks: Sequence[int]) -> None:
        self.counter = AllocationCounter()
        self.peaks: list[int] = []
        self._task, self._chunks = task, chunks

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        self.counter.peak = self.counter.held
        if self._chunks:
            self._task.train_chunk_size = self._chunks[batch_idx]

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ANN401
        self.peaks.append(self.counter.peak)

    def on_validation_batch_start(self, *args: Any) -> None:  # noqa: ANN401
        self.counter.peak = self.counter.held

    def on_validation_batch_end(self, *args: Any) -> None:  # noqa: ANN401
        self.peaks.append(self.counter.peak)
