"""The prediction that a task makes for a case."""

import math

import pytest
import torch
from small_tasks import MeanColour, bag_of, small_head
from torch import Tensor

from e2e_abmilx.tasks import ClassificationTask, MultiLabelTask, Prediction


def _predict(task: ClassificationTask | MultiLabelTask, **how: Tensor) -> Prediction:
    torch.manual_seed(0)
    prediction = task.eval().predict_step(bag_of([4])._replace(**how), 0)
    assert prediction is not None
    return prediction


def test_a_prediction_holds_the_scores_of_one_case_and_the_task_its_patches() -> None:
    task = ClassificationTask(MeanColour(), small_head, 2).bfloat16()
    prediction = _predict(task, time=torch.tensor([math.nan]))
    assert (prediction.case, prediction.label, prediction.event) == ("0", 0, 1)
    assert math.isnan(prediction.time)
    assert list(prediction.scores) == ["probability_0", "probability_1"]
    assert sum(prediction.scores.values()) == pytest.approx(1)
    patches = task.predicted_patches
    assert patches is not None
    assert patches.output.attention.shape == (1, 2, 4)
    assert patches.output.logits.dtype == patches.features.dtype == torch.float32
    assert patches.features.shape == (4, 3)
    assert patches.coords.shape == (4, 2)


def test_several_labels_become_a_tuple() -> None:
    prediction = _predict(MultiLabelTask(MeanColour(), small_head, 3), label=torch.tensor([[1, -1, 0]]))
    assert prediction.label == (1, -1, 0)
