import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.calibration import reliability_curve


@pytest.mark.parametrize("bins", [5, 15])
def test_error_against_torchmetrics(bins: int) -> None:
    torch.manual_seed(0)
    probability, label = torch.randn(300, 6).mul(2).softmax(1), torch.randint(0, 6, (300,))
    curve = reliability_curve(probability, label, bins=bins)
    wanted = multiclass_calibration_error(probability, label, num_classes=6, n_bins=bins)
    assert curve.expected_calibration_error == pytest.approx(wanted.item(), abs=1e-6)
    positive, truth = probability[:, 0].contiguous(), label == 0
    curve = reliability_curve(positive, truth, bins=bins)
    wanted = binary_calibration_error(positive, truth.long(), n_bins=bins)
    assert curve.expected_calibration_error == pytest.approx(wanted.item(), abs=1e-6)


def test_curve_of_a_small_table() -> None:
    probability, label = [0.0, 0.1, 0.5, 0.9, 1.0, 1.0], [0, 1, 1, 1, 1, 0]
    curve = reliability_curve(probability, label, bins=2)
    np.testing.assert_allclose(curve.confidence, [0.05, 0.85])
    np.testing.assert_allclose(curve.frequency, [0.5, 0.75])
    np.testing.assert_array_equal(curve.rows, [2, 4])
    assert curve.expected_calibration_error == pytest.approx((2 * 0.45 + 4 * 0.1) / 6)


def test_empty_bins_are_left_out() -> None:
    curve = reliability_curve([0.01, 0.99], [0, 1], bins=10)
    assert len(curve.confidence) == len(curve.frequency) == len(curve.rows) == 2


def test_calibrated_probabilities_have_no_error() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random(100_000)
    label = (generator.random(100_000) < probability).astype(int)
    assert reliability_curve(probability, label).expected_calibration_error < 0.01
    assert reliability_curve(probability**2, label).expected_calibration_error > 0.1


def test_an_unknown_label_is_named_in_the_error() -> None:
    with pytest.raises(InputError, match="-1 is not a class: labels are 0 … 2"):
        reliability_curve(np.full((2, 3), 1 / 3), [-1, 2])
