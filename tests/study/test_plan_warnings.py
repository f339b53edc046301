from pathlib import Path

import pytest
from plans import read_slides, write_features

from e2e_abmilx.study.plan_cache import plan_cache
from e2e_abmilx.study.plan_cohort import read_planned_cohort
from e2e_abmilx.study.plan_config import Config, read_config
from e2e_abmilx.study.plan_memory import MemoryModel
from e2e_abmilx.study.plan_room import plan_room
from e2e_abmilx.study.plan_steps import plan_steps
from e2e_abmilx.study.plan_warnings import Plan, find_problems

GB = 1_000_000_000
MEMORY = MemoryModel(GB, GB, 2 * GB, 0, 5.0 * GB, 0.02 * GB, 0.0, 1.0, checkpointing=False)


def _problems(config: Config, **room: int) -> str:
    cohort = read_planned_cohort(config.data)
    cache = plan_cache(config.data, cohort)
    steps = plan_steps(config, cohort, cache)
    planned = plan_room(config, cache, steps, MEMORY, None)._replace(**room)
    return "\n".join(find_problems(Plan(config, cohort, cache, steps, MEMORY, planned)))


def test_a_sound_plan_has_none(tmp_path: Path) -> None:
    assert _problems(read_config([*write_features(tmp_path, cases=80), "--trainer.max_epochs=20"])) == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "class a has 1 cases in the test split"),
        (["--data.target=survival", "--data.time_bins=2"], "the test split has 1 events"),
        ([], "32 optimizer steps are few"),
        (["--data.batch_size=9"], "data.batch_size 9 is more than the 8 training cases"),
        (
            ["--model.schedule=WarmupCosine", "--model.schedule.warmup=0.1"],
            "the warm-up of 0.1 of 32 steps is 3.2 steps",
        ),
        (["--trainer.limit_val_batches=0"], "there is no validation, so no checkpoint is chosen"),
        (["--trainer.max_epochs=null"], "Lightning trains for 1000 epochs"),
        (["--gpu_memory=1"], "set model.gradient_checkpointing to true"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, words: list[str], problem: str) -> None:
    assert problem in _problems(read_config([*write_features(tmp_path), *words]))


def test_batch_norm_on_few_patches_and_slides_that_do_not_exist(tmp_path: Path, cohort: Path) -> None:
    few = _problems(read_slides(tmp_path, cohort, tmp_path / "none", "--data.batch_size=2"))
    assert "BatchNorm takes its statistics from 8 patches" in few
    assert "no slide of the table exists" in few
    assert "no patch is known" in few
    chunks = ["--data.patches_per_bag=100", "--model.train_chunk_size=10"]
    assert "statistics from 10 patches" in _problems(read_slides(tmp_path, cohort, tmp_path / "none", *chunks))
    assert "BatchNorm" not in _problems(read_slides(tmp_path, cohort, tmp_path / "none", "--data.patches_per_bag=100"))


def test_splits_without_cases_missing_slides_and_a_full_disk(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    table = (tmp_path / "labels.csv").read_text().replace(",test", ",val")
    (tmp_path / "labels.csv").write_text(table)
    (tmp_path / "features/s3.pt").unlink()
    found = _problems(read_config(words), cache_disk=10 * GB, cache_disk_free=GB, workers_needed=9)
    assert "the test split has no case" in found
    assert "case c3: no slide 's3'" in found
    assert "fit refuses the table as it is" in found
    assert "the cache needs 10.0 GB and 1.0 GB are free" in found
    assert "it needs 9 workers and has 0" in found
