import pytest
import torch
from small_tasks import MeanColour

from e2e_abmilx.heads import ABMIL
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, MultiLabelTask, RegressionTask, SurvivalTask
from e2e_abmilx.tasks.explained_scores import predicted_score, shown_score


@pytest.mark.parametrize(
    ("kind", "outputs", "shown", "predicted"),
    [
        (ClassificationTask, 2, "log-odds of b", "log-odds of a"),
        (ClassificationTask, 3, "log-odds of a", "log-odds of a"),
        (MultiLabelTask, 3, "log-odds of a", "log-odds of a"),
        (SurvivalTask, 3, "risk", "risk"),
        (CoxTask, 1, "risk", "risk"),
        (RegressionTask, 1, "predicted_value", "predicted_value"),
    ],
)
def test_the_explained_score_of_each_task(kind: type[BagTask], outputs: int, shown: str, predicted: str) -> None:
    """Heatmaps show the second of two classes, although the first is more probable."""
    task = kind(MeanColour(), ABMIL, outputs)
    task.classes = ("a", "b", "c")[:outputs]
    logits = torch.tensor([[2.0, 0.5, -1.0]])[:, :outputs]
    for of_task, name in ((shown_score, shown), (predicted_score, predicted)):
        output, found, score = of_task(task, logits)
        assert found == name
        whole = task.bag_scores(logits)
        if kind in (ClassificationTask, MultiLabelTask):
            assert task.score_names()[output] == f"probability_{name[-1]}"
            torch.testing.assert_close(score(logits), torch.logit(whole[:, output]))
        else:
            assert task.score_names()[output] == name
            torch.testing.assert_close(score(logits), whole[:, -1])
