"""Workers, shared memory and disk: whether there is room, and whether the loaders keep up."""

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.data.loaders import plan_workers, recommended_workers
from e2e_abmilx.study.plan_cache import CachePlan
from e2e_abmilx.study.plan_config import Config
from e2e_abmilx.study.plan_memory import MemoryModel
from e2e_abmilx.study.plan_probe import Probe
from e2e_abmilx.study.plan_steps import StepPlan

_SHARED_MEMORY = Path("/dev/shm")
_FLOAT_BYTES = 4


class Room(NamedTuple):
    """What the loaders and files of a training take, in bytes, and what there is.

    Attributes:
        workers: Workers of each training process.
        prefetched: Batches that each of them prepares.
        workers_needed: Workers that read as fast as the model learns; None without a probe of real patches.
        shared_memory: Of batches that wait for training; None where the system has no ``/dev/shm``.
        shared_memory_free: Free now; None likewise.
        cache_disk: That the cache will grow by.
        cache_disk_free: Free where it is.
        run_disk: Of the checkpoints best.ckpt and last.ckpt.
        run_disk_free: Free where the run will be.
    """

    workers: int
    prefetched: int
    workers_needed: int | None
    shared_memory: int | None
    shared_memory_free: int | None
    cache_disk: int
    cache_disk_free: int
    run_disk: int
    run_disk_free: int


def plan_room(config: Config, cache: CachePlan, steps: StepPlan, memory: MemoryModel, probe: Probe | None) -> Room:
    """Compare what loaders and files need with what this machine has."""
    data = config.data
    patch = int(config.task.encoder.num_features) * _FLOAT_BYTES if cache.side is None else 3 * cache.side**2  # type: ignore[arg-type]
    batch = data.batch_size * steps.largest_bag * patch
    wanted = recommended_workers(config.processes) if data.num_workers is None else data.num_workers
    used = plan_workers(wanted, batch, processes=config.processes)
    waiting = used.num_workers * used.prefetch_factor * batch * config.processes
    there = _SHARED_MEMORY.is_dir()
    cache_folder = Path(getattr(data, "cache", getattr(data, "features", config.run)))
    return Room(
        *used,
        _workers_needed(probe),
        waiting if there else None,
        shutil.disk_usage(_SHARED_MEMORY).free if there else None,
        cache.new_bytes,
        _free(cache_folder),
        2 * (memory.weights + memory.optimizer + memory.average),
        _free(config.run),
    )


def _workers_needed(probe: Probe | None) -> int | None:
    if probe is None or math.isnan(probe.decode_rate):
        return None
    return math.ceil(probe.model_rate / probe.decode_rate)


def _free(folder: Path) -> int:
    """Return the free bytes where a folder is or will be."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
