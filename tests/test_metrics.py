"""Metrics: Harrell's C-index, over batches and processes, and means over classes."""

import itertools
import math
import pickle
from pathlib import Path

import pytest
import scipy.stats
import torch
import torch.distributed
import torch.multiprocessing
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional import pearson_corrcoef, r2_score, spearman_corrcoef

from e2e_abmilx.errors import InputError
from e2e_abmilx.metrics import BalancedAccuracy, ClassAUC, ConcordanceIndex, MeasureOfValues, concordance_index


def _pairwise(risk: list[float], time: list[float], event: list[int]) -> float:
    """Return Harrell's C from its definition, over all pairs whose order of events is known."""
    agreed = comparable = 0.0
    for i, j in itertools.permutations(range(len(risk)), 2):
        if not event[i] or not (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            continue
        comparable += 1
        agreed += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return agreed / comparable if comparable else math.nan


def _cohort(size: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(size), torch.rand(size) * 50, torch.randint(0, 2, (size,))


cases = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8), st.integers(0, 1)), min_size=1, max_size=25)


@given(cases)
def test_c_index_equals_its_definition_over_all_pairs(rows: list[tuple[int, int, int]]) -> None:
    risk, time, event = (list(column) for column in zip(*rows, strict=True))
    columns = [torch.tensor(column) for column in (risk, time, event)]
    wanted = _pairwise(risk, time, event)
    assert concordance_index(*columns) == pytest.approx(wanted, nan_ok=True)
    metric = ConcordanceIndex()
    for batch in zip(*(column.split(4) for column in columns), strict=True):
        metric.update(*batch)
    assert metric.compute().item() == pytest.approx(wanted, nan_ok=True)


@given(cases)
def test_c_index_of_the_opposite_risk_is_the_complement(rows: list[tuple[int, int, int]]) -> None:
    risk, time, event = (torch.tensor(column) for column in zip(*rows, strict=True))
    found = concordance_index(risk, time, event)
    assert math.isnan(found) or 0 <= found <= 1
    assert concordance_index(-risk, time, event) == pytest.approx(1 - found, nan_ok=True)


def test_c_index_of_known_orders() -> None:
    time, event = torch.arange(1.0, 8.0), torch.tensor([1, 1, 0, 1, 0, 1, 0])
    assert concordance_index(-time, time, event) == 1
    assert concordance_index(time, time, event) == 0
    assert concordance_index(torch.zeros(7), time, event) == 0.5


def test_c_index_equals_the_authors(shared: Path) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    metric = ConcordanceIndex()
    metric.update(reference["risk"], reference["event_times"], 1 - reference["c"])
    assert metric.compute().item() == pytest.approx(reference["cindex"], abs=1e-6)


@pytest.mark.parametrize(
    ("time", "event"),
    [([1.0], [1]), ([1.0, 2.0], [0, 0]), ([2.0, 2.0], [1, 1]), ([1.0, 2.0], [0, 1])],
    ids=["one case", "all censored", "events at one time", "only the last one happened"],
)
def test_no_comparable_pair_is_nan(time: list[float], event: list[int]) -> None:
    metric = ConcordanceIndex()
    metric.update(torch.arange(len(time)).float(), torch.tensor(time), torch.tensor(event))
    assert metric.compute().isnan()


@pytest.mark.parametrize("broken", ["risk", "time"])
def test_nan_is_named(broken: str) -> None:
    columns = {"risk": torch.randn(3), "time": torch.rand(3), "event": torch.ones(3)}
    columns[broken][1] = math.nan
    metric = ConcordanceIndex()
    metric.update(**columns)
    with pytest.raises(InputError, match=f"1 of 3 rows of '{broken}' are NaN"):
        metric.compute()


def test_columns_of_different_lengths_are_named() -> None:
    with pytest.raises(InputError, match=r"different lengths, \{'risk': 2, 'time': 3, 'event': 3\}"):
        concordance_index(torch.randn(2), torch.rand(3), torch.ones(3))


def test_float64_precision_is_kept() -> None:
    """Risks that are equal in float32 are still ordered."""
    risk = 1 + torch.tensor([2e-12, 1e-12], dtype=torch.float64)
    metric = ConcordanceIndex()
    metric.update(risk, torch.tensor([1.0, 2.0]), torch.tensor([1, 1]))
    assert metric.compute() == 1


def test_metric_accumulates_batches_and_resets() -> None:
    columns = _cohort(30)
    metric = ConcordanceIndex()
    for batch in zip(*(column.split(7) for column in columns), strict=True):
        metric.update(*batch)
    assert metric.compute().item() == pytest.approx(concordance_index(*columns))
    metric.reset()
    metric.update(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0]), torch.tensor([1, 1]))
    assert metric.compute() == 1


def test_metric_keeps_no_graph() -> None:
    metric = ConcordanceIndex()
    metric.update(torch.randn(3, requires_grad=True), torch.rand(3), torch.ones(3))
    assert not metric.risk[0].requires_grad


def test_metric_can_be_pickled() -> None:
    columns = _cohort(20)
    metric = ConcordanceIndex()
    metric.update(*(column[:12] for column in columns))
    copy = pickle.loads(pickle.dumps(metric))
    copy.update(*(column[12:] for column in columns))
    assert copy.compute().item() == pytest.approx(concordance_index(*columns))


def test_metrics_can_be_merged() -> None:
    first, second = ConcordanceIndex(), ConcordanceIndex()
    columns = _cohort(20)
    first.update(*(column[:5] for column in columns))
    second.update(*(column[5:] for column in columns))
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(concordance_index(*columns))


def _process(rank: int, folder: Path) -> None:
    """Add one process's part of the cohort; the parts have different sizes."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    part = slice(0, 5) if rank == 0 else slice(5, 20)
    metric = ConcordanceIndex()
    metric.update(*(column[part] for column in _cohort(20)))
    (folder / str(rank)).write_text(str(metric.compute().item()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_metric_combines_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (tmp_path,), nprocs=2)
    wanted = pytest.approx(concordance_index(*_cohort(20)))
    assert [float((tmp_path / str(rank)).read_text()) for rank in range(2)] == [wanted, wanted]


def test_class_auc_is_the_mean_over_classes_that_occur() -> None:
    metric = ClassAUC()
    metric.update(torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1]]), torch.tensor([0, 1]))
    metric.update(torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([1]))
    assert metric.compute() == 1  # of classes 0 and 1; torchmetrics counts class 2 as 0
    metric.reset()
    metric.update(torch.tensor([[0.7, 0.3], [0.4, 0.6]]), torch.tensor([0, 0]))
    assert metric.compute().isnan()


def test_balanced_accuracy_is_the_mean_recall_over_classes_that_occur() -> None:
    metric = BalancedAccuracy(3)
    metric.update(torch.eye(3)[[0, 0, 1, 2]], torch.tensor([0, 0, 1, 1]))
    assert metric.compute() == 0.75  # recalls 1 and 1/2; class 2 is predicted only


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_measures_of_values_equal_scipy_over_batches(offset: float) -> None:
    """With an offset of 10,000, torchmetrics' own R² is 0.999 instead of 0.92."""
    torch.manual_seed(0)
    value = offset + torch.randn(200)
    predicted = (value + 0.3 * torch.randn(200)).round(decimals=1)
    one, two = predicted.double().numpy(), value.double().numpy()
    expected = {
        r2_score: 1 - ((two - one) ** 2).sum() / ((two - two.mean()) ** 2).sum(),
        pearson_corrcoef: scipy.stats.pearsonr(one, two).statistic,
        spearman_corrcoef: scipy.stats.spearmanr(one, two).statistic,
    }
    for measure, number in expected.items():
        metric = MeasureOfValues(measure, constant_scores=measure is r2_score)
        for batch in zip(predicted.split(7), value.split(7), strict=True):
            metric.update(*batch)
        assert float(metric.compute()) == pytest.approx(number, abs=1e-6)


def test_measures_of_constant_values_are_undefined() -> None:
    """torchmetrics returns 0 for Spearman's correlation and for R²."""
    same, different = torch.ones(3), torch.tensor([1.0, 2.0, 6.0])
    for predicted, value, expected in (
        (same, different, {r2_score: -12 / 14, pearson_corrcoef: math.nan, spearman_corrcoef: math.nan}),
        (different, same, dict.fromkeys((r2_score, pearson_corrcoef, spearman_corrcoef), math.nan)),
        (same[:1], same[:1], dict.fromkeys((r2_score, pearson_corrcoef, spearman_corrcoef), math.nan)),
    ):
        for measure, number in expected.items():
            metric = MeasureOfValues(measure, constant_scores=measure is r2_score)
            metric.update(predicted, value)
            assert float(metric.compute()) == pytest.approx(number, nan_ok=True)
