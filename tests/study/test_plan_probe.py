import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule
from plans import read_slides, write_features

from e2e_abmilx.study.plan_cache import plan_cache
from e2e_abmilx.study.plan_cohort import read_planned_cohort
from e2e_abmilx.study.plan_config import Config, read_config
from e2e_abmilx.study.plan_probe import Probe, probe_machine
from e2e_abmilx.study.plan_steps import StepPlan, plan_steps


def _probe(config: Config) -> tuple[Probe, StepPlan]:
    cohort = read_planned_cohort(config.data)
    cache = plan_cache(config.data, cohort)
    steps = plan_steps(config, cohort, cache)
    return probe_machine(config, cohort, cache, steps), steps


class _Slow(torch.nn.Module):
    """An encoder that takes 10 ms a patch, whatever the machine does beside."""

    num_features = 6

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01 * features.shape[0] * features.shape[1])
        return features


def test_the_hours_are_those_of_a_known_pace(tmp_path: Path) -> None:
    config = read_config(write_features(tmp_path))
    config.task.encoder = _Slow()
    weights = {name: value.clone() for name, value in config.task.state_dict().items()}
    probe, steps = _probe(config)
    patches = steps.patch_passes + steps.eval_patches
    assert probe.real
    seconds = probe.hours(steps) * 3600
    assert 0.9 < seconds / (0.01 * patches) < 3  # Lightning takes some time too
    assert 30 < probe.model_rate < 100
    assert all(torch.equal(value, weights[name]) for name, value in config.task.state_dict().items())


@pytest.mark.parametrize("draw", ["UniformDraw", "AttentionDraw"])
def test_patches_of_the_cache_are_read(tmp_path: Path, cohort: Path, stores: Path, draw: str) -> None:
    config = read_slides(tmp_path, cohort, stores, f"--data.draw={draw}")
    assert isinstance(config.data, LightningDataModule)
    before = dict(config.data.cases), sorted(tmp_path.iterdir())
    probe, _ = _probe(config)
    assert probe.real
    assert probe.decode_rate > 0
    assert probe.eval_rate > 0
    assert len(config.data.cases["val"]) == 4
    assert sorted(tmp_path.iterdir()) == before[1]


def test_without_a_cache_pixels_are_random(tmp_path: Path, cohort: Path) -> None:
    words = [f"--data.slides={cohort}/slides", "--data.patch_size=64"]
    probe, _ = _probe(read_slides(tmp_path, cohort, tmp_path / "none", *words))
    assert not probe.real
    assert probe.step_s > 0
    assert probe.decode_rate != probe.decode_rate  # unknown
    assert not (tmp_path / "none").exists()
