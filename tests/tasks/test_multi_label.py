"""MultiLabelTask: several labels per case, of which some are unknown."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_average_precision,
    multilabel_f1_score,
)

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMILX, CLAM, BagHead, MeanPool
from e2e_abmilx.main import main
from e2e_abmilx.runs.read import read_run
from e2e_abmilx.tasks import BagTask, ClassificationTask, MultiLabelTask, SurvivalTask


def _bag(label: list[list[int]]) -> Bag:
    size = len(label)
    torch.manual_seed(0)
    zeros = torch.zeros(size, 5, dtype=torch.long)
    return Bag(
        torch.randn(size, 5, 3), torch.ones(size, 5, dtype=torch.bool), zeros, torch.stack([zeros, zeros], -1),
        torch.tensor(label), torch.rand(size), torch.zeros(size, dtype=torch.long), tuple(map(str, range(size))), True,
    )  # fmt: skip


def _metrics(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Return the metrics of cases that are added one by one."""
    task = MultiLabelTask(Precomputed(3), MeanPool, label.shape[1])
    for row, truth in zip(logits, label, strict=True):
        bag = _bag([truth.tolist()])
        task.update_metrics(task.val_metrics, row[None], bag)
    return {name.removeprefix("val/"): value for name, value in task.val_metrics.compute().items()}


def test_metrics_equal_torchmetrics_if_all_classes_have_both_labels() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(50, 3), torch.randint(-1, 2, (50, 3))
    probability = logits.sigmoid()
    expected = {
        "auc": multilabel_auroc(probability, label, 3, ignore_index=-1),
        "average_precision": multilabel_average_precision(probability, label, 3, ignore_index=-1),
        "accuracy": multilabel_accuracy(probability, label, 3, average="micro", ignore_index=-1),
        "balanced_accuracy": multilabel_accuracy(probability, label, 3, average="macro", ignore_index=-1),
        "f1": multilabel_f1_score(probability, label, 3, ignore_index=-1),
    }
    torch.testing.assert_close(_metrics(logits, label), expected)


def test_classes_without_both_labels_are_left_out_of_the_mean() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(20, 3), torch.randint(0, 2, (20, 3))
    label[:, 1], label[:, 2] = -1, 1
    found = _metrics(logits, label)
    torch.testing.assert_close(found["auc"], binary_auroc(logits[:, 0].sigmoid(), label[:, 0]))
    assert found["accuracy"] == multilabel_accuracy(logits.sigmoid(), label, 3, average="micro", ignore_index=-1)
    assert _metrics(logits[:, 1:], label[:, 1:])["auc"].isnan()


@pytest.mark.parametrize("head", [ABMILX, MeanPool])
def test_unknown_labels_have_no_gradient(head: type[BagHead]) -> None:
    task = MultiLabelTask(Precomputed(3), head, 3)
    bag = _bag([[1, 0, -1], [-1, 1, -1]])
    output = task(bag)
    output.logits.retain_grad()
    task.head.training_loss(output, lambda logits: task.bag_loss(logits, bag), task.bag_classes(bag)).backward()
    assert ((output.logits.grad != 0) == (bag.label >= 0)).all()
    torch.testing.assert_close(task.bag_scores(output.logits), output.logits.sigmoid())


def test_heads_that_need_a_class_are_refused() -> None:
    task, bag = MultiLabelTask(Precomputed(3), CLAM, 3), _bag([[1, 0, 1]])
    with pytest.raises(ValueError, match="these bags have none: take GatedABMIL"):
        task.training_step(bag, 0)


def _table(folder: Path, cohort: Path) -> Path:
    """Write the synthetic cohort's table with two labels: lesion, unknown for one case in six, and severe."""
    table = pd.read_csv(cohort / "labels.csv", dtype=str)
    table["severe"] = np.where(table["grade"] == "2", "1", "0")
    table.loc[::6, "lesion"] = ""
    table.to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


@pytest.mark.parametrize(
    ("task", "how", "message"),
    [
        (MultiLabelTask, {"columns": {"label": "grade"}}, "MultiLabelTask learns from the target multi_label and the data give label"),
        (ClassificationTask, {"target": "multi_label", "classes": ["severe"]}, "set data.target to label, or take the task of multi_label"),
        (SurvivalTask, {"target": "multi_label", "classes": ["severe"]}, "set data.target to survival"),
        (MultiLabelTask, {"target": "multi_label", "classes": ["severe"]}, r"the data have 1 classes \(severe\) and the model 2"),
    ],
)  # fmt: skip
def test_tasks_and_data_must_fit(
    task: type[BagTask], how: dict[str, object], message: str, cohort: Path, stores: Path, tmp_path: Path
) -> None:
    data = SlideDataModule(stores, _table(tmp_path, cohort), num_workers=0, **how)  # type: ignore[arg-type]
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, max_epochs=1)
    with pytest.raises(InputError, match=message):
        trainer.fit(task(Precomputed(3), MeanPool, 2), data)


def test_from_the_label_table_to_the_report(
    cohort: Path, stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "model": {
            "class_path": "MultiLabelTask",
            "init_args": {
                "num_outputs": 2,
                "encoder": {"class_path": "TimmEncoder", "init_args": {"name": "test_resnet", "pretrained": False}},
                "head": {"class_path": "ABMILX", "init_args": {"hidden_features": 16, "num_heads": 2}},
                "loss": {"class_path": "e2e_abmilx.losses.classification.MaskedBCE", "init_args": {"positive_weight": [3, 1]}},
            },
        },
        "data": {
            "class_path": "SlideDataModule",
            "init_args": {
                "cache": str(stores), "labels": str(_table(tmp_path, cohort)), "target": "multi_label",
                "classes": ["severe", "lesion"], "patches_per_bag": 8, "batch_size": 4, "num_workers": 0,
            },
        },
        "trainer": {
            "default_root_dir": str(tmp_path / "run"), "accelerator": "cpu", "max_epochs": 2,
            "enable_progress_bar": False, "log_every_n_steps": 1,
        },
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(tmp_path / "config.yaml")])
    run = tmp_path / "run"
    with open(run / "metrics.csv", newline="") as file:
        tested = [row for row in csv.DictReader(file) if row.get("test/auc")]
    predictions = read_run(run).predictions
    table = pd.read_csv(tmp_path / "labels.csv").set_index("case")
    for name in ("severe", "lesion"):
        expected = table.loc[predictions.index, name].tolist()
        assert predictions[f"label_{name}"].tolist() == pytest.approx(expected, nan_ok=True)
    assert predictions["label_lesion"].isna().any()
    capsys.readouterr()
    main(["report", "--runs", str(run), "--html", "true"])
    heads, values = (line.split("  ") for line in capsys.readouterr().out.splitlines()[1:3])
    assert [head.strip() for head in heads if head.strip()][2:] == [
        "AUC", "accuracy", "balanced acc.", "F1", "AUC severe", "AUC lesion",
    ]  # fmt: skip
    (row,) = tested
    shown = [value.strip() for value in values if value.strip()][2:6]
    for name, value in zip(["auc", "accuracy", "balanced_accuracy"], shown, strict=False):
        assert float(value) == pytest.approx(float(row[f"test/{name}"]), abs=6e-4)
    assert "<h3>ROC</h3>" in (run / "report.html").read_text()

    checkpoint = torch.load(run / "best.ckpt", weights_only=False)
    assert checkpoint["classes"] == ["severe", "lesion"]
    assert checkpoint["threshold"] is None
    main(["predict", "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt")])
    assert len(pd.read_csv(run / "predict/predictions.csv")) == 24
