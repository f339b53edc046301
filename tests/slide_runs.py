"""A config of short fits on the synthetic slides, and commands that fail."""

from pathlib import Path

import pytest
import yaml

from e2e_abmilx.main import main

MODEL = {
    "class_path": "ClassificationTask",
    "init_args": {
        "num_outputs": 2,
        "encoder": {"class_path": "ResNetEncoder", "init_args": {"pretrained": False}},
        "head": {"class_path": "ABMILX", "init_args": {"hidden_features": 32, "num_heads": 4}},
        "augment": {"class_path": "RandomCrops", "init_args": {"size": 32}},
        "schedule": {"class_path": "WarmupCosine"},
    },
}


def write_slide_config(folder: Path, cohort: Path, stores: Path) -> Path:
    """Write a config of three short epochs on the synthetic stores; the run goes into ``folder/run``."""
    content = {
        "seed_everything": 0,
        "model": MODEL,
        "data": {
            "class_path": "SlideDataModule",
            "init_args": {
                "cache": str(stores), "labels": str(cohort / "labels.csv"), "columns": {"label": "lesion"},
                "patches_per_bag": 4, "batch_size": 4, "num_workers": 0,
            },
        },
        "trainer": {
            "default_root_dir": str(folder / "run"), "max_epochs": 3, "accelerator": "cpu",
            "enable_progress_bar": False, "limit_train_batches": 2, "log_every_n_steps": 1,
        },
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def message_of(args: list[str]) -> str:
    """Run a command that must fail, and return the message that it exits with."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code not in (None, 0)
    return str(stopped.value.code)
