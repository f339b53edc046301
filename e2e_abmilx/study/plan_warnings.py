"""Reasons why a plan cannot work, or why its result will say little."""

from collections.abc import Iterator
from typing import NamedTuple

from e2e_abmilx.cohort import SPLITS
from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.encoders import count_chunks
from e2e_abmilx.encoders.chunks import batch_norms_of
from e2e_abmilx.study.plan_cache import CachePlan
from e2e_abmilx.study.plan_cohort import PlannedCohort
from e2e_abmilx.study.plan_config import Config
from e2e_abmilx.study.plan_memory import MemoryModel, gpu_budget
from e2e_abmilx.study.plan_room import Room
from e2e_abmilx.study.plan_steps import StepPlan

_FEW_CASES = 5  # of a class in a split
_FEW_EVENTS = 10  # in a split
_FEW_IN_A_CHUNK = 16  # patches that BatchNorm takes its statistics from
_FEW_STEPS = 100


class Plan(NamedTuple):
    """All parts of a plan but the probe."""

    config: Config
    cohort: PlannedCohort
    cache: CachePlan
    steps: StepPlan
    memory: MemoryModel
    room: Room


def find_problems(plan: Plan) -> list[str]:
    """Return one sentence per problem: what is wrong, why, and what to do."""
    return [
        *_of_cohort(plan.config.data, plan.cohort),
        *_of_cache(plan.config.data, plan.cohort, plan.cache),
        *_of_training(plan.config, plan.steps),
        *_of_room(plan),
    ]


def _of_cohort(data: BagDataModule, cohort: PlannedCohort) -> Iterator[str]:
    for split in SPLITS:
        cases, targets = cohort.cases[split], cohort.targets[split]
        if not cases:
            yield {
                "train": "the train split has no case",
                "val": "the val split has no case: fit refuses it, because checkpoints are chosen on it",
                "test": "the test split has no case: the run ends without a test",
            }[split]
        elif data.plan.target == "survival":
            events = sum(target.event for target in targets)
            if events < _FEW_EVENTS:
                yield f"the {split} split has {events} events: a C-index of fewer than {_FEW_EVENTS} says little"
        elif data.plan.target != "regression":
            yield from _rare_classes(split, cohort)
    if not cohort.known and not cohort.missing:
        yield "no slide of the table exists: all its cases are planned as if they did"
    for line in cohort.missing[:5]:
        yield f"{line}; " + ("this case is left out" if data.plan.skip_missing else "fit refuses the table as it is")
    if len(cohort.missing) > 5:
        yield f"{len(cohort.missing) - 5} more cases lack slides"


def _rare_classes(split: str, cohort: PlannedCohort) -> Iterator[str]:
    for number, name in enumerate(cohort.classes):
        labels = [target.label for target in cohort.targets[split]]
        count = sum(label[number] == 1 if isinstance(label, tuple) else label == number for label in labels)
        if count < _FEW_CASES:
            yield (
                f"class {name} has {count} cases in the {split} split: with fewer than {_FEW_CASES} its measures are a"
                " matter of chance; take more cases, other splits, or leave the class out"
            )


def _of_cache(data: BagDataModule, cohort: PlannedCohort, cache: CachePlan) -> Iterator[str]:
    yield from (f"slide {line}" for line in cache.failed)
    if not cache.patches:
        yield (
            "no patch is known, because nothing is cached and data.slides is not given or none of its slides can be read:"
            " bags are taken as full, and validation and test as free; give data.slides or run `e2e-abmilx cache`"
        )


def _of_training(config: Config, steps: StepPlan) -> Iterator[str]:
    task, data = config.task, config.data
    if data.batch_size > len(data.cases["train"]):
        yield f"data.batch_size {data.batch_size} is more than the {len(data.cases['train'])} training cases"
    patches = steps.bag_patches * data.batch_size
    chunk = patches / count_chunks(round(patches), task.train_chunk_size)
    if batch_norms_of(task.encoder) and chunk < _FEW_IN_A_CHUNK:
        yield (
            f"BatchNorm takes its statistics from {chunk:.0f} patches (a bag has {steps.bag_patches:.0f}, a batch"
            f" {data.batch_size} bags, a chunk at most {task.train_chunk_size} patches): with fewer than {_FEW_IN_A_CHUNK}"
            " they are noise; raise data.patches_per_bag, data.batch_size or model.train_chunk_size"
        )
    if steps.steps < _FEW_STEPS:
        yield f"{steps.steps} optimizer steps are few to learn from; raise trainer.max_epochs"
    warmup = getattr(task.schedule, "keywords", {}).get("warmup")
    if isinstance(warmup, float) and warmup * steps.steps < 10:
        yield (
            f"the warm-up of {warmup:g} of {steps.steps} steps is {warmup * steps.steps:.1f} steps; train for longer or"
            " raise model.schedule.warmup"
        )
    if not steps.validations:
        yield "there is no validation, so no checkpoint is chosen and none is tested; set trainer.check_val_every_n_epoch"
    if config.trainer["max_epochs"] is None and config.trainer["max_steps"] < 0:
        yield "trainer.max_epochs is not set: Lightning trains for 1000 epochs"


def _of_room(plan: Plan) -> Iterator[str]:
    room, config, memory = plan.room, plan.config, plan.memory
    for name, needed, free in (
        ("the cache", room.cache_disk, room.cache_disk_free),
        ("the checkpoints", room.run_disk, room.run_disk_free),
        ("/dev/shm", room.shared_memory, room.shared_memory_free),
    ):
        if needed is not None and free is not None and needed > 0.95 * free:
            yield f"{name} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make room"
    if room.workers_needed is not None and room.workers_needed > room.workers:
        yield (
            f"the model waits for patches: it needs {room.workers_needed} workers and has {room.workers};"
            " raise data.num_workers"
        )
    if config.gpu_memory is None:
        return
    peak = memory.peak_on_gpu(config.data.batch_size * plan.steps.largest_bag, config.task.train_chunk_size)
    budget = gpu_budget(config.gpu_memory)
    if peak > budget:
        cure = "lower model.train_chunk_size" if memory.checkpointing else "set model.gradient_checkpointing to true"
        yield (
            f"training needs {peak / 1e9:.1f} GB of the {budget / 1e9:.1f} GB that a GPU of {config.gpu_memory:g} GB has"
            f" for tensors; {cure}, or lower data.patches_per_bag or data.batch_size"
        )
