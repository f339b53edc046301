"""Maps of heads whose contributions are known, and a map that is planted wrong."""

import copy

import numpy as np
import pytest
import torch
from small_tasks import MeanColour
from torch import Tensor, nn

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.faithfulness import most_evaluations
from e2e_abmilx.heads import ABMIL, DSMIL, RRTMIL, MeanPool, PoolingHead, TransMIL
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.tasks import (
    BagTask,
    ClassificationTask,
    CoxTask,
    MultiLabelTask,
    RegressionTask,
    SurvivalTask,
    case_faithfulness,
)
from e2e_abmilx.tasks.case_faithfulness import MapFaithfulness, auc_of, measure_case
from e2e_abmilx.tasks.prediction import PredictedPatches


def _predicted(task: BagTask, features: Tensor) -> BagTask:
    """Return the task as it is after the prediction of a case with these features."""
    task.eval()
    with torch.no_grad():
        output = task.head.attend(features[None])
    coords = torch.zeros(len(features), 2, dtype=torch.int64)
    task.predicted_patches = PredictedPatches(HeadOutput(*output), features, coords, coords[:, 0])
    return task


def _by_map(task: BagTask, truth: np.ndarray | None = None) -> dict[str, MapFaithfulness]:
    return {one.map: one for one in measure_case(task, "case", truth)}


def _mean_task() -> ClassificationTask:
    """Return a task whose log-odds of the second class are the mean of the first feature."""
    task = ClassificationTask(MeanColour(), MeanPool, 2)
    assert isinstance(task.head, MeanPool)
    with torch.no_grad():
        task.head.classifier.weight.zero_()[1, 0] = 1
        task.head.classifier.bias.zero_()
    return task


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_contributions_of_a_mean_are_the_best_order(sign: float) -> None:
    """Of a mean, the patches with the most evidence for the predicted class are known, whichever class it is."""
    torch.manual_seed(0)
    features = torch.randn(100, 3) + torch.tensor([sign, 0, 0])
    found = _by_map(_predicted(_mean_task(), features))
    assert list(found) == ["attention", "contribution", "random"]
    evidence = np.sort((sign * features[:, 0]).double().numpy())

    def probability(kept: np.ndarray) -> float:
        return float(1 / (1 + np.exp(-kept.mean())))

    score, curves = found["contribution"].score, found["contribution"].curves
    assert score == ("probability_1" if sign > 0 else "probability_0")
    percent = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 100)
    np.testing.assert_allclose(curves.insertion, [probability(evidence[-count:]) for count in percent], rtol=1e-5)
    np.testing.assert_allclose(curves.deletion[::-1], [probability(evidence[:count]) for count in percent], rtol=1e-5)
    for other in ("attention", "random"):  # the attention of a mean is constant, so that its order is random
        assert (curves.insertion >= found[other].curves.insertion - 1e-6).all()
        assert (curves.deletion <= found[other].curves.deletion + 1e-6).all()
    assert found["random"].curves.deletion_area == pytest.approx(found["attention"].curves.deletion_area, abs=0.1)


class _Weighted(PoolingHead):
    """Attention grows with the first feature, whose weighted mean is the log-odds of the second class."""

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)
        self.classifier = nn.Linear(in_features, num_outputs)
        with torch.no_grad():
            self.classifier.weight.zero_()[1, 0] = 1
            self.classifier.bias.zero_()

    def values(self, features: Tensor) -> Tensor:
        return features.unsqueeze(2)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        attention = features[..., 0].softmax(dim=1).unsqueeze(1)
        pooled = attention @ features
        return HeadOutput(self.classify(pooled), attention, pooled.flatten(1))


class _Reversed(_Weighted):
    """The same predictions, with an attention that is planted: it points away from the patches that decide."""

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        output = super().attend(features, mask)
        reported = 1 / output.attention
        return output._replace(attention=reported / reported.sum(dim=2, keepdim=True))


def _lesion_task(head: type[PoolingHead]) -> BagTask:
    """Return the prediction of a case whose patches 10 to 19 are the evidence for the second class."""
    torch.manual_seed(0)
    features = torch.randn(60, 3) * 0.1
    features[10:20, 0] += 3
    return _predicted(ClassificationTask(MeanColour(), head, 2), features)


def test_a_reversed_map_is_told_apart_from_a_faithful_one() -> None:
    truth = (np.arange(60) >= 10) & (np.arange(60) < 20)
    honest, planted = _by_map(_lesion_task(_Weighted), truth), _by_map(_lesion_task(_Reversed), truth)
    faithful, reversed_, random = honest["attention"], planted["attention"], honest["random"]
    assert faithful.curves.insertion[-1] > 0.7
    assert faithful.curves.deletion_area < random.curves.deletion_area - 0.05
    assert faithful.curves.insertion_area > random.curves.insertion_area + 0.02
    assert reversed_.curves.deletion_area > random.curves.deletion_area + 0.02
    assert reversed_.curves.insertion_area < random.curves.insertion_area - 0.05
    assert (faithful.auc, reversed_.auc, random.auc) == (1, 0, 0.5)
    assert honest["contribution"].auc == 1


@pytest.mark.parametrize("head", [DSMIL, TransMIL, RRTMIL])
def test_heads_without_contributions_see_the_patches_in_their_order(head: type[BagHead]) -> None:
    torch.manual_seed(0)
    task = _predicted(ClassificationTask(MeanColour(), head, 2), torch.randn(30, 3))
    seen: list[Tensor] = []
    task.head.register_forward_hook(lambda module, given, output: seen.extend(given[0]))
    found = _by_map(task)
    assert list(found) == ["attention", "random"]
    patches = task.predicted_patches
    assert patches is not None
    assert 2 < len(seen) <= most_evaluations(1)
    places = [[int((patches.features == row).all(dim=1).nonzero()) for row in bag] for bag in seen]
    assert all(place == sorted(place) for place in places)
    probability = float(patches.output.logits.softmax(1).max())
    assert found["attention"].curves.deletion[0] == pytest.approx(probability, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "outputs", "score"),
    [
        (SurvivalTask, 3, "risk"),
        (CoxTask, 1, "risk"),
        (RegressionTask, 1, "predicted_value"),
        (MultiLabelTask, 3, None),
    ],
)
def test_the_watched_score_of_each_task(kind: type[BagTask], outputs: int, score: str | None) -> None:
    torch.manual_seed(0)
    task = _predicted(kind(MeanColour(), ABMIL, outputs), torch.randn(9, 3))
    if isinstance(task, RegressionTask):
        task.value_mean.fill_(50)
    patches = task.predicted_patches
    assert patches is not None
    scores = task.bag_scores(patches.output.logits)[0]
    watched = int(scores.argmax()) if score is None else -1
    found = _by_map(task)
    for one in found.values():
        assert one.score == task.score_names()[watched] == (score or one.score)
        assert one.patches == 9
        assert one.curves.insertion[-1] == one.curves.deletion[0] == pytest.approx(float(scores[watched]), rel=1e-5)
    assert found["contribution"].curves.deletion_area < found["random"].curves.deletion_area


def test_large_cases_are_pooled_a_few_at_once_and_small_ones_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of the head gets more patches than the case has, or than the number that always fits."""
    torch.manual_seed(0)
    task = _predicted(ClassificationTask(MeanColour(), ABMIL, 2), torch.randn(30, 3))
    sizes: list[int] = []
    task.head.register_forward_hook(lambda module, given, output: sizes.append(given[0].shape[0] * given[0].shape[1]))
    together = _by_map(task)
    assert len(sizes) <= 16
    sizes.clear()
    monkeypatch.setattr(case_faithfulness, "_AT_ONCE", 10)
    few = _by_map(task)
    assert max(sizes) == 30
    for name, one in together.items():
        np.testing.assert_allclose(one.curves.deletion, few[name].curves.deletion, rtol=1e-5)


def test_a_task_in_half_precision_is_watched_in_float32_and_not_changed() -> None:
    torch.manual_seed(0)
    task = ClassificationTask(MeanColour(), ABMIL, 2)
    features = torch.randn(20, 3)
    exact = _by_map(_predicted(task, features))["attention"].curves
    patches = task.predicted_patches
    half = copy.deepcopy(task).bfloat16().train()
    half.predicted_patches = patches
    np.testing.assert_allclose(_by_map(half)["attention"].curves.deletion, exact.deletion, rtol=0.05)
    assert {weights.dtype for weights in half.head.parameters()} == {torch.bfloat16}
    assert half.head.training


def test_the_same_case_has_the_same_random_orders_in_every_process() -> None:
    torch.manual_seed(0)
    task = _predicted(ClassificationTask(MeanColour(), ABMIL, 2), torch.randn(20, 3))
    areas = [{one.map: one.curves.deletion_area for one in measure_case(task, case)} for case in ("a", "a", "b")]
    assert areas[0] == areas[1]
    assert areas[0]["random"] != areas[2]["random"]


def test_auc_needs_true_and_other_patches() -> None:
    importance = np.array([0.1, 0.4, 0.4, 0.2])
    assert auc_of(importance, np.array([False, True, False, False])) == pytest.approx((2 + 0.5) / 3)
    for truth in (None, np.zeros(4, bool), np.ones(4, bool)):
        assert np.isnan(auc_of(importance, truth))
    with pytest.raises(InputError, match="the truth is of 3 patches, and the map of 4"):
        auc_of(importance, np.zeros(3, bool))
