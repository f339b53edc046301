import math
import shutil
from pathlib import Path

from plans import write_features

from e2e_abmilx.study.plan_cache import CachePlan
from e2e_abmilx.study.plan_config import read_config
from e2e_abmilx.study.plan_memory import MemoryModel
from e2e_abmilx.study.plan_probe import Probe
from e2e_abmilx.study.plan_room import plan_room
from e2e_abmilx.study.plan_steps import StepPlan

MEMORY = MemoryModel(10, 10, 20, 10, 50.0, 2.0, 0.0, 1.0, checkpointing=False)
STEPS = StepPlan(8, 8, 4, 32, 32, 100.0, 120, 3200, 4, 50, 50)


def test_what_is_needed_and_what_there_is(tmp_path: Path) -> None:
    config = read_config([*write_features(tmp_path), "--data.num_workers=3", "--data.batch_size=2"])
    cache = CachePlan({}, 64, new_bytes=1234)
    room = plan_room(config, cache, STEPS, MEMORY, Probe(1.0, 100.0, 1000.0, 300.0, real=True))
    assert (room.workers, room.prefetched, room.workers_needed) == (3, 2, 4)
    if room.shared_memory is not None:
        assert room.shared_memory == 6 * 2 * 120 * 3 * 64**2
    assert (room.cache_disk, room.run_disk) == (1234, 80)
    assert room.cache_disk_free <= shutil.disk_usage(tmp_path).total
    assert not config.run.exists()


def test_without_a_probe_of_files_the_workers_needed_are_unknown(tmp_path: Path) -> None:
    config = read_config(write_features(tmp_path))
    assert plan_room(config, CachePlan({}, None), STEPS, MEMORY, None).workers_needed is None
    unread = Probe(1.0, 100.0, 1000.0, math.nan, real=False)
    assert plan_room(config, CachePlan({}, None), STEPS, MEMORY, unread).workers_needed is None
