"""ClassificationTask: its threshold and its metrics at it."""

from pathlib import Path

import pytest
from small_tasks import MeanColour, fit, small_head

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
