from pathlib import Path

import pytest
from plans import read_slides, write_features

from e2e_abmilx.errors import InputError
from e2e_abmilx.study.plan_config import read_config


def test_options_of_a_plan_and_of_a_fit(tmp_path: Path, cohort: Path) -> None:
    words = ["--gpu-memory=24", "--data.batch_size", "3", "--trainer.devices=2", "--json", "plan.json"]
    config = read_slides(tmp_path, cohort, tmp_path / "none", *words)
    assert (config.gpu_memory, config.probe, config.json) == (24, False, Path("plan.json"))
    assert (config.data.batch_size, config.processes) == (3, 2)
    assert config.run == tmp_path / "run"
    assert not config.run.exists()
    assert not (tmp_path / "none").exists()


def test_the_config_of_a_run_can_be_planned(tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text("ckpt_path: null\nweights_only: null\n")
    assert read_config([*write_features(tmp_path), f"--config={tmp_path}/fit.yaml"]).trainer["max_epochs"] == 4


def test_the_average_of_weights_is_kept_in_a_probe_and_other_callbacks_are_not(tmp_path: Path) -> None:
    words = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks+=LearningRateMonitor"]
    config = read_config([*write_features(tmp_path), *words])
    assert len(config.callbacks) == 2
    kept = config.make_trainer().callbacks[0]
    assert type(kept) is type(config.averages[0])
    assert kept is not config.averages[0]  # each trainer starts an average of its own
    assert [type(callback).__name__ for callback in config.averages] == ["EMAWeightAveraging"]


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    with pytest.raises(InputError, match="gpu_memory is -4; it is the memory of a GPU in GB"):
        read_config([*words, "--gpu_memory=-4"])
    with pytest.raises(InputError, match="batch_size is 0; it counts bags"):
        read_config([*words, "--data.batch_size=0"])


def test_precision_is_half_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    words = [word for word in write_features(tmp_path) if not word.startswith("--trainer.precision")]
    assert read_config([*words, "--gpu_memory=8"]).precision in ("bf16-mixed", "16-mixed")
    assert read_config([*words, "--gpu_memory=8", "--trainer.precision=32-true"]).precision == "32-true"
