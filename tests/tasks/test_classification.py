"""ClassificationTask: its threshold and its metrics at it."""

from pathlib import Path

import pytest
import torch
from small_tasks import MeanColour, fit, small_head

from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks import ClassificationTask


def test_the_threshold_is_fitted_on_validation_and_saved_in_the_checkpoint(
    cohort: Path, stores: Path, tmp_path: Path
) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2)
    trainer = fit(task, cohort, stores, tmp_path, columns={"label": "lesion"})
    assert task.threshold is not None
    assert task.threshold.split == "val"
    data = trainer.datamodule
    assert data is not None
    trainer.validate(task, data, verbose=False)
    fitted = task.threshold
    task.threshold = None
    (tested,) = trainer.test(task, data, ckpt_path=str(tmp_path / "best.ckpt"), verbose=False)
    assert task.threshold == fitted
    assert tested["test/threshold"] == pytest.approx(fitted.value)
    predictions = [p for p in trainer.predict(task, data.test_dataloader()) or [] if p is not None]
    positive = [p.scores["probability_1"] >= fitted.value for p in predictions if p.label == 1]
    negative = [p.scores["probability_1"] < fitted.value for p in predictions if p.label == 0]
    assert tested["test/sensitivity"] == pytest.approx(sum(positive) / len(positive))
    assert tested["test/specificity"] == pytest.approx(sum(negative) / len(negative))
    assert 0 <= tested["test/ece"] <= 1


def test_a_threshold_of_a_stated_sensitivity(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2, sensitivity=0.9, train_chunk_size=64)
    trainer = fit(task, cohort, stores, tmp_path, columns={"label": "lesion"})
    assert task.threshold is not None
    assert task.threshold.rule == "sensitivity of at least 0.9"
    assert trainer.datamodule is not None
    validated = trainer.datamodule.val_dataloader()
    predictions = [p for p in trainer.predict(task, validated, ckpt_path="best") or [] if p is not None]
    positive = sorted(p.scores["probability_1"] for p in predictions if p.label == 1)
    assert task.threshold.cases == len(predictions) > len(positive) > 1
    reached = sum(score >= task.threshold.value for score in positive)
    assert reached / len(positive) >= 0.9 > (reached - 1) / len(positive)
    hyperparameters = torch.load(tmp_path / "best.ckpt", weights_only=True)["hyper_parameters"]
    assert (hyperparameters["sensitivity"], hyperparameters["train_chunk_size"]) == (0.9, 64)
    loaded = ClassificationTask.load_from_checkpoint(tmp_path / "best.ckpt", encoder=MeanColour(), head=small_head)
    assert (loaded.sensitivity, loaded.threshold) == (0.9, task.threshold)


@pytest.mark.parametrize(
    ("sensitivity", "classes", "message"),
    [
        (1.2, 2, r"sensitivity is 1\.2; it is a fraction and must lie in \(0, 1\]"),
        (0.0, 2, r"sensitivity is 0\.0; it is a fraction"),
        (0.95, 3, r"sensitivity is 0\.95, but there are 3 classes"),
    ],
)
def test_a_sensitivity_that_cannot_be_reached_is_refused(sensitivity: float, classes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassificationTask(MeanColour(), small_head, classes, sensitivity=sensitivity)
