"""SurvivalTask: time bins, survival at their edges, and risk."""

from pathlib import Path

import pytest
import torch
from small_tasks import MeanColour, bag_of, fit, small_head

from e2e_abmilx.tasks import SurvivalTask


def test_survival_scores_are_risks() -> None:
    task = SurvivalTask(MeanColour(), small_head, 4)
    bag = bag_of([3, 3], label=1)
    logits = task(bag).logits
    assert task.bag_loss(logits, bag).ndim == 0
    assert task.bag_scores(logits).shape == (2, 1)
    assert task.score_names() == ["risk"]


def test_time_bins_are_saved_and_survival_at_their_edges_is_predicted(
    cohort: Path, stores: Path, tmp_path: Path
) -> None:
    task = SurvivalTask(MeanColour(), small_head, 4)
    trainer = fit(task, cohort, stores, tmp_path, target="survival")
    data = trainer.datamodule
    assert data is not None
    assert len(data.time_edges) == 3
    assert task.score_names() == [*(f"survival_{edge:.6g}" for edge in data.time_edges), "risk"]
    saved = torch.load(tmp_path / "best.ckpt", weights_only=False)
    assert saved["time_edges"] == list(data.time_edges)
    for prediction in trainer.predict(task, data.test_dataloader()) or []:
        if prediction is not None:
            *survival, risk = prediction.scores.values()
            assert 1 >= survival[0] >= survival[1] >= survival[2] >= 0
            assert risk == pytest.approx(-sum(survival), abs=1)  # the survival of the last bin is missing
    (tested,) = trainer.test(task, data, verbose=False)
    assert tested["test/threshold"] == pytest.approx(task.threshold.value)  # type: ignore[union-attr]
