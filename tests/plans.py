"""Configs of the synthetic slides and of features that need no run: a helper of the tests of plans."""

from pathlib import Path

import torch
from slide_runs import write_slide_config

from e2e_abmilx.study.plan_config import Config, read_config


def read_slides(folder: Path, cohort: Path, cache: Path, *words: str) -> Config:
    """Return a config of the synthetic slides, with further options."""
    return read_config(["--config", str(write_slide_config(folder, cohort, cache)), *words])


def write_features(folder: Path, cases: int = 12, width: int = 6) -> list[str]:
    """Write features of 3, 4, … patches and labels; return the options of a plan for them."""
    torch.manual_seed(0)
    (folder / "features").mkdir()
    rows = ["case,slide,label,time,event,split"]
    for index in range(cases):
        torch.save(torch.randn(3 + index, width), folder / f"features/s{index}.pt")
        split = ("train", "train", "val", "test")[index // 2 % 4] if cases > 4 else "train"
        rows.append(f"c{index},s{index},{'ab'[index % 2]},{10 + index}.5,{index % 2},{split}")
    (folder / "labels.csv").write_text("\n".join(rows))
    words = f"""--data=FeatureDataModule --data.features={folder}/features --data.labels={folder}/labels.csv
        --data.num_workers=0 --model=ClassificationTask --model.num_outputs=2 --model.encoder=Precomputed
        --model.encoder.num_features={width} --model.head=ABMIL --trainer.accelerator=cpu --trainer.max_epochs=4
        --trainer.precision=32-true"""
    return words.split()
