import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from e2e_abmilx.callbacks import PredictionTable
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.heads import MeanPool
from e2e_abmilx.tasks import ClassificationTask


class _Mean(nn.Module):
    num_features = 3

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3))


def test_one_row_a_case_as_the_table_spells_it(cohort: Path, stores: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ClassificationTask(_Mean(), MeanPool, 3)
    columns = {"label": "grade"}
    data = SlideDataModule(stores, cohort / "labels.csv", columns=columns, chunk_size=7, workers=0)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[PredictionTable()],
    )  # fmt: skip
    trainer.test(task, data, verbose=False)
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    expected = {case.id: case.label for case in data.cases["test"]}
    assert {case: row["label"] for case, row in rows.items()} == expected
    predictions = [one for one in trainer.predict(task, data.test_dataloader()) if one is not None]
    for one in predictions:
        written = [float(rows[one.case][f"probability_{grade}"]) for grade in range(3)]
        assert written == pytest.approx(list(one.scores.values()), abs=1e-5)
