"""Small trained models, each trained once, and a cohort that was drawn separately from that of their training."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from feature_runs import fit, write_config
from slide_runs import write_slide_config

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.synthetic import write_cohort

_SHORT = [
    *("--trainer.max_epochs", "1"),
    *("--trainer.limit_train_batches", "1"),
    *("--trainer.num_sanity_val_steps", "0"),
]
_SURVIVAL = [
    *("--model.class_path", "SurvivalTask"),
    *("--data.target", "survival"),
    *("--data.time_bins", "2"),
    *("--data.columns", "null"),
]


@pytest.fixture(scope="session")
def slide_run(cohort: Path, stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that classified the synthetic slides, in bfloat16."""
    folder = tmp_path_factory.mktemp("slide run")
    fit(write_slide_config(folder, cohort, stores), *_SHORT, "--trainer.precision", "bf16-mixed")
    return folder / "run"


@pytest.fixture(scope="session")
def survival_run(cohort: Path, stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a survival run on the synthetic slides."""
    folder = tmp_path_factory.mktemp("survival run")
    fit(write_slide_config(folder, cohort, stores), *_SHORT, *_SURVIVAL, "--trainer.precision", "32-true")
    return folder / "run"


@pytest.fixture(scope="session")
def feature_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on features, next to ``features`` and ``labels.csv``."""
    folder = tmp_path_factory.mktemp("feature run")
    config = write_config(folder)
    content = yaml.safe_load(config.read_text())
    content["trainer"]["max_epochs"] = 1
    config.write_text(yaml.safe_dump(content))
    fit(config)
    return folder / "run"


@pytest.fixture(scope="session")
def second_feature_run(feature_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the same features whose best checkpoint has other weights."""
    folder = tmp_path_factory.mktemp("second feature run") / "run"
    shutil.copytree(feature_run, folder)
    content = torch.load(folder / "best.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(1)
    for value in content["state_dict"].values():
        value += 0.1 * torch.randn(value.shape, generator=generator)
    content["contract"]["threshold"]["value"] += 0.1
    torch.save(content, folder / "best.ckpt")
    return folder


@pytest.fixture(scope="session")
def external(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort drawn with another seed; its names are those of the training cohort, and its slides are others."""
    folder = tmp_path_factory.mktemp("external")
    write_cohort(folder, slides=24, side=512, seed=1)
    cache_slides(folder / "slides", folder / "stores", mpp=(0.5,), patch_size=64, workers=1)
    return folder
