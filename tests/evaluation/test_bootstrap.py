import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import (
    bootstrap,
    bootstrap_two_cohorts,
    difference_of_estimates,
    paired_bootstrap,
    resamples,
)
from e2e_abmilx.evaluation.concordance import Concordance
from e2e_abmilx.evaluation.estimators import (
    Accuracy,
    Auroc,
    BalancedAccuracy,
    CohenKappa,
    Estimator,
    MacroF1,
    Resampled,
    RowMean,
)

SEED = 7784414403328510413  # of the authors' resamples of fold 0


def _authors_resamples(size: int, n_resamples: int) -> Iterator[NDArray[np.int64]]:
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(n_resamples):
        yield torch.multinomial(torch.ones(size), size, replacement=True, generator=generator).numpy()


def test_c_index_on_the_authors_resamples(shared: Path) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    estimator = Concordance(reference["risk"], reference["event_times"], 1 - reference["c"])
    assert estimator(np.ones(24, dtype=np.int64)) == pytest.approx(reference["cindex"], abs=1e-6)
    drawn = list(_authors_resamples(24, 1000))
    for ours, theirs in zip(drawn, reference["bootstrap_idx_first3"], strict=False):
        np.testing.assert_array_equal(ours, theirs)
    values = [estimator(np.bincount(rows, minlength=24)) for rows in drawn]
    found = [statistics.mean(values), statistics.stdev(values)]
    assert found == pytest.approx(reference["bootstrap_cindex_fold0"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("AUC", lambda probability, label: Auroc(probability, label)),
        ("Acc_micro", lambda probability, label: Accuracy(probability.argmax(1), label)),
        ("Acc(macro)", lambda probability, label: BalancedAccuracy(probability.argmax(1), label)),
        ("F1", lambda probability, label: MacroF1(probability.argmax(1), label)),
        ("CK", lambda probability, label: CohenKappa(probability.argmax(1), label)),
    ],
)
def test_classification_on_the_authors_resamples(shared: Path, name: str, make: Callable[..., Estimator]) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)["cls_metrics"]
    estimator = make(reference["logits"].softmax(1), reference["labels"])
    assert estimator(np.ones(200, dtype=np.int64)) == pytest.approx(reference["point"][name], abs=1e-6)
    values = [estimator(np.bincount(rows, minlength=200)) for rows in _authors_resamples(200, 50)]
    found = [statistics.mean(values), statistics.stdev(values)]
    assert found == pytest.approx(reference["boot50"][name], abs=1e-6)


def _cases(size: int) -> list[str]:
    return [f"case {number:04}" for number in range(size)]


def test_mean_of_normal_numbers() -> None:
    """The bootstrap of a mean is known: std / √n, with an interval of ± 1.96 times that."""
    value = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap(RowMean(value, among=np.ones(400)), _cases(400), n_resamples=4000)
    error = value.std() / math.sqrt(400)
    assert found.point == pytest.approx(value.mean())
    assert found.mean == pytest.approx(value.mean(), abs=0.01)
    assert found.std == pytest.approx(error, rel=0.05)
    assert found.low == pytest.approx(value.mean() - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(value.mean() + 1.96 * error, abs=0.02)
    assert (found.n_resamples, found.undefined) == (4000, 0)


def test_summary_covers_the_defined_resamples() -> None:
    """With few cases, many resamples contain a single class."""
    probability, label = [0.2, 0.6, 0.4, 0.9], [0, 0, 1, 1]
    estimator = Auroc(probability, label)
    found = bootstrap(estimator, _cases(4), n_resamples=300, seed=3)
    values = [estimator(weight) for weight in resamples(_cases(4), n_resamples=300, seed=3)][1:]
    defined = [value for value in values if not math.isnan(value)]
    assert found.undefined == len(values) - len(defined) > 0
    assert found.point == 0.75
    assert found.mean == pytest.approx(statistics.mean(defined))
    assert found.std == pytest.approx(statistics.stdev(defined))
    assert [found.low, found.high] == pytest.approx(np.quantile(defined, [0.025, 0.975]).tolist())


def test_a_measure_that_is_never_defined() -> None:
    found = bootstrap(Auroc([0.1, 0.2], [1, 1]), _cases(2), n_resamples=10)
    assert found.undefined == found.n_resamples == 10
    assert all(math.isnan(value) for value in found[:5])
    assert math.isnan(paired_bootstrap(*[Auroc([0.1, 0.2], [1, 1])] * 2, _cases(2), n_resamples=10).p_value)


def test_resamples_without_a_comparable_pair_are_left_out() -> None:
    found = bootstrap(Concordance([1, 2, 3], [3, 2, 1], [0, 0, 1]), _cases(3), n_resamples=200)
    assert found.point == 1
    assert 0 < found.undefined < 200
    assert (found.mean, found.std) == (1, 0)


def test_rows_of_a_case_stay_together() -> None:
    cases = ["b", "a", "b", "c", "a", "b"]
    for weight in resamples(cases, n_resamples=50, seed=0):
        assert weight[0] == weight[2] == weight[5]
        assert weight[1] == weight[4]
        assert weight[0] + weight[1] + weight[3] == 3


def test_copies_of_rows_do_not_narrow_the_interval() -> None:
    """Ten copies of each row carry no more information than one."""
    value = np.random.default_rng(0).normal(size=50)
    once = bootstrap(RowMean(value, among=np.ones(50)), _cases(50))
    copies = bootstrap(RowMean(np.repeat(value, 10), among=np.ones(500)), np.repeat(_cases(50), 10).tolist())
    assert copies == pytest.approx(once)


def test_result_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    value, cases = np.random.default_rng(0).normal(size=30), _cases(30)
    first = bootstrap(RowMean(value, among=np.ones(30)), cases, seed=1)
    assert bootstrap(RowMean(value, among=np.ones(30)), cases, seed=1) == first
    assert bootstrap(RowMean(value, among=np.ones(30)), cases, seed=2) != first
    assert bootstrap(RowMean(value[::-1], among=np.ones(30)), cases[::-1], seed=1) == pytest.approx(first)


def test_weighting_rows_equals_repeating_them() -> None:
    generator = np.random.default_rng(0)
    guess, label = generator.integers(0, 3, (2, 80))
    by_weight = bootstrap(Accuracy(guess, label), _cases(80), n_resamples=50)
    by_rows = bootstrap(Resampled(lambda g, y: (g == y).mean(), guess, label), _cases(80), n_resamples=50)
    assert by_rows == pytest.approx(by_weight)


def test_paired_difference() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 300)
    noise = generator.normal(size=300)
    good, poor, other = (Auroc(signal * label + noise, label) for signal in (1.5, 0.5, 0.45))
    clear, unclear = (paired_bootstrap(first, second, _cases(300)) for first, second in [(good, poor), (poor, other)])
    once = np.ones(300, dtype=np.int64)
    assert clear.estimate.point == pytest.approx(good(once) - poor(once))
    assert clear.estimate.low > 0
    assert clear.p_value == pytest.approx(2 / 1001)
    # both share their noise, so the paired interval is far narrower than either interval
    assert unclear.estimate.std < bootstrap(poor, _cases(300)).std / 5
    reverse = paired_bootstrap(poor, good, _cases(300))
    assert reverse.p_value == clear.p_value
    assert reverse.estimate.high == pytest.approx(-clear.estimate.low)


def test_identical_predictions_do_not_differ() -> None:
    estimator = Accuracy([0, 1, 1, 0], [0, 1, 0, 0])
    found = paired_bootstrap(estimator, estimator, _cases(4))
    assert (found.estimate.point, found.estimate.low, found.estimate.high, found.p_value) == (0, 0, 0, 1)


def test_p_values_of_equally_good_models_are_uniform() -> None:
    """p < 0.1 in about one comparison in ten."""
    generator = np.random.default_rng(0)
    small = 0
    for _ in range(200):
        first, second = generator.normal(size=(2, 60))
        once = np.ones(60)
        found = paired_bootstrap(RowMean(first, among=once), RowMean(second, among=once), _cases(60), n_resamples=200)
        small += found.p_value < 0.1
    assert 8 <= small <= 36


def test_every_row_needs_a_case() -> None:
    with pytest.raises(InputError, match="3 cases for the 2 rows of Accuracy; name the case of each row"):
        bootstrap(Accuracy([0, 1], [0, 1]), _cases(3))
    with pytest.raises(InputError, match="2 cases for the 3 rows of Accuracy"):
        paired_bootstrap(Accuracy([0, 1], [0, 1]), Accuracy([0, 1, 1], [0, 1, 1]), _cases(2))


def test_importing_needs_no_torch() -> None:
    code = "import sys, e2e_abmilx.evaluation.bootstrap, e2e_abmilx.evaluation.concordance; print({'torch', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_two_cohorts_are_resampled_independently() -> None:
    generator = np.random.default_rng(0)
    cohorts = [generator.normal(mean, 1, size) for mean, size in ((0.0, 150), (0.5, 80))]
    (first, second), (one, two) = zip(
        *((RowMean(c, np.ones(len(c))), list(map(str, range(len(c))))) for c in cohorts), strict=False
    )
    found = bootstrap_two_cohorts(first, one, second, two, n_resamples=4000)
    assert found.first == bootstrap(first, one, n_resamples=4000)
    assert found.second == bootstrap(second, two, n_resamples=4000)
    std = math.sqrt(sum(cohort.var() / len(cohort) for cohort in cohorts))
    change = cohorts[1].mean() - cohorts[0].mean()
    assert found.difference.point == pytest.approx(change)
    assert found.difference.std == pytest.approx(std, rel=0.05)
    assert found.difference[3:5] == pytest.approx((change - 1.96 * std, change + 1.96 * std), abs=0.02)
    rough = difference_of_estimates(found.first, found.second)
    assert rough[:5] == pytest.approx(found.difference[:5], abs=0.02)
    same = bootstrap_two_cohorts(first, one, first, one, n_resamples=1000).difference
    assert same.point == 0
    assert same.std == pytest.approx(math.sqrt(2 / 150) * cohorts[0].std(), rel=0.1)  # not 0, as of equal resamples


def test_a_difference_is_undefined_where_either_cohort_is() -> None:
    label = np.array([1, 0, 0, 0])
    always, sometimes = Auroc(np.arange(400) % 7 / 7, np.arange(400) % 2), Auroc([0.5, 0.1, 0.2, 0.9], label)
    found = bootstrap_two_cohorts(always, list(map(str, range(400))), sometimes, ["a", "b", "c", "d"])
    assert found.first.undefined == 0
    assert found.difference.undefined == found.second.undefined > 200
    never = difference_of_estimates(found.first, found.second._replace(point=np.nan, std=np.nan))
    assert all(map(math.isnan, (never.point, never.low, never.high)))
