"""Runs on features of 24 cases, and what they leave in their folders."""

import csv
import sys
from pathlib import Path

import torch
import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.training import cli


def write_config(folder: Path, *, split: str = "usual", classes: int = 2) -> Path:
    """Write the features of 24 cases and a config of three epochs on them.

    Args:
        folder: Folder for both; the run goes into its subfolder ``run``.
        split: ``"usual"``, or a split whose validation cases are of ``"one class"`` or only ``"one case"``, or without
            the last class (``"absent class"``), which the test cases lack too.
        classes: Number of classes.
    """
    generator = torch.Generator().manual_seed(0)
    (folder / "features").mkdir(exist_ok=True)
    rows = ["slide,label,split"]
    for number in range(24):
        part = "train" if number < 12 else "val" if number < 18 else "test"
        label = 1 if split == "one class" and part == "val" else number % classes
        if split == "one case" and part == "val" and number > 12:
            part = "train"
        if split == "absent class" and part != "train" and label == classes - 1:
            continue
        features = torch.randn(6, 8, generator=generator) + 2 * torch.eye(8)[number % classes]
        torch.save(features, folder / f"features/s{number:02}.pt")
        rows.append(f"s{number:02},{label},{part}")
    (folder / "labels.csv").write_text("\n".join(rows))
    config = {
        "seed_everything": 0,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {
                "num_outputs": classes,
                "encoder": {"class_path": "Precomputed", "init_args": {"num_features": 8}},
                "head": {"class_path": "ABMIL", "init_args": {"hidden_features": 16}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
            },
        },
        "data": {
            "class_path": "FeatureDataModule",
            "init_args": {
                "features": str(folder / "features"), "labels": str(folder / "labels.csv"), "batch_size": 2, "num_workers": 0,
            },
        },
        "trainer": {
            "default_root_dir": str(folder / "run"), "max_epochs": 3, "accelerator": "cpu", "precision": "32-true",
            "enable_progress_bar": False, "log_every_n_steps": 1,
        },
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def fit(config: Path, *options: str) -> None:
    """Run ``e2e-abmilx fit`` without its figures, which take as long to draw as three epochs here."""
    try:
        cli.run(["fit", "--config", str(config), *options])
    except InputError as error:
        sys.exit(f"error: {error}")


def column(run: Path, name: str) -> list[float]:
    """Return the values of a column of ``metrics.csv``."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def epoch_of(path: Path) -> int:
    """Return the epoch of a checkpoint."""
    return int(torch.load(path, weights_only=False)["epoch"])


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
