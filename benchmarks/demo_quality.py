"""Train a demo with several seeds; print the test metric and how well the attention finds the lesions.

    python benchmarks/demo_quality.py --seeds 3
    python benchmarks/demo_quality.py --seeds 3 --config configs/demo_survival.yaml

A fine patch is a lesion patch if at least half of it is lesion in the true mask. In every test slide with a lesion, the
AUC of the attention, averaged over heads, is computed for this label; the mean of the AUCs is printed. The exit status
is not 0 if a mean over the seeds misses its target.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import Trainer
from torchmetrics.functional.classification import binary_auroc

import e2e_abmilx
from e2e_abmilx import PatchStore, SyntheticDataModule
from e2e_abmilx.cohort import Case
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.patch_truth import covered_in_store
from e2e_abmilx.main import main
from e2e_abmilx.models import Model
from e2e_abmilx.models.inputs import bags_of
from e2e_abmilx.tasks import BagTask

#: Least mean over seeds, for classification and for survival. Until version 2 of the slides they were 0.95 and 0.85 for
#: classification; ABMILX misses both on version 3, whose benign changes resemble the lesions (benchmarks/compare.txt). The
#: lower ones were set after its runs, to notice a regression: they are no evidence of quality.
TARGETS = {"ClassificationTask": {"test/auc": 0.80, "attention AUC": 0.75}, "SurvivalTask": {"test/c_index": 0.75}}


def attention_auc(task: BagTask, cases: Sequence[Case], folder: Path) -> float:
    """Return the mean over slides of the AUC with which attention separates lesion patches from other patches."""
    aucs = []
    for prediction in Model(task).predict_cases(bags_of(cases, folder / "cache", task.contract)):
        if isinstance(prediction, InputError):
            raise prediction
        slide = prediction.case.replace("case", "slide")
        store = PatchStore(folder / f"cache/{slide}.zarr")
        covered = covered_in_store(store, folder / f"masks/{slide}.png", store.coords(), 0)
        lesion = torch.from_numpy(covered >= 0.5)
        if 0 < lesion.sum() < len(lesion):
            aucs.append(float(binary_auroc(torch.from_numpy(prediction.patches.attention).mean(dim=0), lesion.int())))
    return float(np.mean(aucs))


def task_name(settings: dict[str, Any]) -> str:
    """Return the name of the model's class in the settings."""
    return str(settings["model"]["class_path"]).rpartition(".")[2]


def run_seed(config: Path, run: Path, seed: int, changes: list[str]) -> dict[str, float]:
    """Fit the demo with one seed, by the command line, and measure it."""
    started = time.perf_counter()
    seeded = ["--seed_everything", str(seed), "--data.seed", str(seed), "--trainer.default_root_dir", str(run)]
    main(["fit", "--config", str(config), *seeded, *changes])
    seconds = time.perf_counter() - started
    settings = yaml.safe_load((run / "fit.yaml").read_text())
    data = SyntheticDataModule(**settings["data"]["init_args"])
    data.setup("test")
    task = getattr(e2e_abmilx, task_name(settings)).load_from_checkpoint(run / "best.ckpt")
    trainer = Trainer(accelerator="auto", devices=1, logger=False, enable_progress_bar=False)
    (result,) = trainer.test(task, data.test_dataloader(), verbose=False)
    measure = next(name for name in TARGETS[task_name(settings)] if name in result)
    return {
        measure: result[measure],
        "attention AUC": attention_auc(task, data.cases["test"], data.folder),
        "fit seconds": seconds,
    }


def report() -> int:
    """Run all seeds, print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "configs/demo.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/demo_quality"))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options, changes = parser.parse_known_args()  # other options change the config: --model.head.num_heads 2
    seeds = range(options.first, options.first + options.seeds)
    rows = [run_seed(options.config, options.out / f"seed-{seed}", seed, changes) for seed in seeds]
    print("seed", *rows[0], sep="\t")
    for seed, row in zip(seeds, rows, strict=True):
        print(seed, *(f"{value:.3f}" for value in row.values()), sep="\t")
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print("mean", *(f"{value:.3f}" for value in means.values()), sep="\t")
    targets = TARGETS[task_name(yaml.safe_load(options.config.read_text()))]
    missed = [f"{name} {means[name]:.3f} < {target}" for name, target in targets.items() if means[name] < target]
    print("missed: " + "; ".join(missed) if missed else "all targets met")
    return len(missed)


if __name__ == "__main__":
    sys.exit(report())
