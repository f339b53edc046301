"""The command ``plan``: what a fit will take, and what its test can show, before anything is started."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from e2e_abmilx.study.plan_cache import CachePlan, plan_cache
from e2e_abmilx.study.plan_cohort import describe_cohort, read_planned_cohort
from e2e_abmilx.study.plan_config import Config, read_config
from e2e_abmilx.study.plan_memory import MARGIN, MemoryModel, gpu_budget, measure_memory
from e2e_abmilx.study.plan_power import describe_power, plan_power
from e2e_abmilx.study.plan_probe import Probe, probe_machine
from e2e_abmilx.study.plan_room import plan_room
from e2e_abmilx.study.plan_steps import StepPlan, plan_steps
from e2e_abmilx.study.plan_table import show_plan
from e2e_abmilx.study.plan_warnings import Plan, find_problems


def plan(words: Sequence[str]) -> str:
    """Return a table of what a fit with these options will take; the module docstrings of the parts state how.

    Neither the cache nor the folder of the run is written to.

    Args:
        words: Options of a fit, and ``--gpu_memory GB``, ``--probe`` and ``--json FILE``.

    Raises:
        InputError: The config, the label table or a slide cannot be used, as in a fit.
    """
    with _calm_lightning():
        config = read_config(words)
        facts = make_plan(config)
    if config.json is not None:
        config.json.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return show_plan(facts)


@contextmanager
def _calm_lightning() -> Iterator[None]:
    """Hide what Lightning says about each of the short trainings, which are no runs of the user."""
    logs = [logging.getLogger(f"lightning.{package}.utilities.rank_zero") for package in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.WARNING)
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def make_plan(config: Config) -> dict[str, Any]:
    """Return a plan as JSON holds it; bytes are in GB of 10⁹ bytes."""
    data = config.data
    cohort = read_planned_cohort(data)
    cache = plan_cache(data, cohort)
    if cache.is_complete and cohort.known:
        data.check(cohort.everyone)
    steps = plan_steps(config, cohort, cache)
    memory = measure_memory(config, cohort, cache.side)
    probe = probe_machine(config, cohort, cache, steps) if config.probe else None
    room = plan_room(config, cache, steps, memory, probe)
    return {
        "cohort": describe_cohort(data, cohort),
        "cache": _describe_cache(cache),
        "training": {**steps._asdict(), "eval_patches": steps.eval_patches},
        "time": _describe_time(probe, steps),
        "memory": _describe_memory(config, memory, steps, cache),
        "room": room._asdict(),
        "power": describe_power(plan_power(data, cohort)),
        "warnings": find_problems(Plan(config, cohort, cache, steps, memory, room)),
    }


def _describe_cache(cache: CachePlan) -> dict[str, Any]:
    totals = [sum(column) for column in zip(*cache.patches.values(), strict=True)]
    sizes = {"gigabytes": cache.bytes / 1e9, "new_gigabytes": cache.new_bytes / 1e9, "hours": cache.hours}
    counts = {"stored": cache.stored, "to_cache": cache.to_cache, "sampled": cache.sampled}
    return {"patches_by_scale": totals, "patch_side": cache.side, **counts, **sizes}


def _describe_time(probe: Probe | None, steps: StepPlan) -> dict[str, Any]:
    """Return the hours of a training; no table of other hardware stands in for a probe, which takes a minute."""
    if probe is None:
        return {"hours": None}
    rates = {name: None if math.isnan(value) else value for name, value in probe._asdict().items()}
    return {"hours": probe.hours(steps), **rates}


def _describe_memory(config: Config, memory: MemoryModel, steps: StepPlan, cache: CachePlan) -> dict[str, Any]:
    data, chunk = config.data, config.task.train_chunk_size
    patches = data.batch_size * steps.largest_bag
    most = max((max(counts) for counts in cache.patches.values()), default=steps.largest_bag)
    eval_chunk = min(most, int(getattr(data, "eval_chunk_size", most)))
    described: dict[str, Any] = {
        "precision": config.precision,
        "gradient_checkpointing": config.task.gradient_checkpointing,
        **{name: getattr(memory, name) / 1e9 for name in ("weights", "gradients", "optimizer", "average")},
        "per_patch": memory.per_patch / 1e9,
        "per_chunk_patch": memory.per_chunk_patch / 1e9,
        "peak": memory.peak(patches, chunk) / 1e9,
        "peak_evaluation": memory.eval_peak(eval_chunk) / 1e9,
    }
    if config.gpu_memory is not None:
        described["gpu"] = _describe_gpu(config, config.gpu_memory, memory, steps)
    return described


def _describe_gpu(config: Config, gigabytes: float, memory: MemoryModel, steps: StepPlan) -> dict[str, Any]:
    """Return what fits a GPU."""
    batch_size, chunk = config.data.batch_size, config.task.train_chunk_size
    patches, budget = batch_size * steps.largest_bag, gpu_budget(gigabytes)
    most = memory.most_patches(budget, chunk)
    return {
        "gigabytes": gigabytes,
        "margin": MARGIN,
        "for_tensors": budget / 1e9,
        "peak": memory.peak_on_gpu(patches, chunk) / 1e9,
        "largest_patches_per_bag": most // batch_size,
        "largest_batch_size": most // steps.largest_bag,
        "largest_chunk": memory.largest_chunk(budget, patches),
    }
