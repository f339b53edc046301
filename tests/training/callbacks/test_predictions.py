"""predictions.csv has one row per case, with the truth as the label table spells it."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.heads import MeanPool
from e2e_abmilx.tasks import BagTask, ClassificationTask, MultiLabelTask, RegressionTask, SurvivalTask
from e2e_abmilx.training.callbacks import PredictionTable


class _Mean(nn.Module):
    num_features = 3

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3))


def test_one_row_per_case_as_the_table_spells_it(cohort: Path, stores: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ClassificationTask(_Mean(), MeanPool, 3)
    columns = {"label": "grade"}
    data = SlideDataModule(stores, cohort / "labels.csv", columns=columns, eval_chunk_size=7, num_workers=0)
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


def _rows(trainer_folder: Path, task: BagTask, data: SlideDataModule, method: str) -> list[dict[str, str]]:
    trainer = Trainer(
        default_root_dir=trainer_folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[PredictionTable()],
    )  # fmt: skip
    getattr(trainer, method)(task, data)
    with open(trainer_folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_several_labels_per_case(cohort: Path, stores: Path, tmp_path: Path) -> None:
    lines = (cohort / "labels.csv").read_text().splitlines()
    marks = ["severe", *("" if number % 2 else "1" for number in range(len(lines) - 1))]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(f"{line},{mark}" for line, mark in zip(lines, marks, strict=True)))
    how = {"target": "multi_label", "classes": ["severe", "lesion"], "num_workers": 0}
    data = SlideDataModule(stores, table, **how)  # type: ignore[arg-type]
    rows = _rows(tmp_path, MultiLabelTask(_Mean(), MeanPool, 2), data, "test")
    names = ["severe", "lesion"]
    expected = {case.id: case.labels for case in data.cases["test"]}
    assert list(rows[0]) == ["case", *(f"label_{name}" for name in names), *(f"probability_{name}" for name in names)]
    assert {row["label_severe"] for row in rows} == {"1", ""}
    for row in rows:
        assert tuple(int(row[f"label_{name}"] or -1) for name in names) == expected[row["case"]]


@pytest.mark.parametrize(
    ("task", "outputs", "truth"),
    [
        (ClassificationTask, 2, ["label"]),
        (MultiLabelTask, 2, ["label_0", "label_1"]),
        (SurvivalTask, 2, ["time", "event"]),
        (RegressionTask, 1, ["value"]),
    ],
)
def test_the_truth_is_empty_without_a_label_table(
    task: type[BagTask], outputs: int, truth: list[str], stores: Path, tmp_path: Path
) -> None:
    rows = _rows(tmp_path, task(_Mean(), MeanPool, outputs), SlideDataModule(stores, num_workers=0), "predict")
    assert len(rows) == 24
    assert list(rows[0])[1 : 1 + len(truth)] == truth
    assert not any(row[name] for row in rows for name in truth)
