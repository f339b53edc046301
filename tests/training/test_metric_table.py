"""Metrics under the names that people use."""

from e2e_abmilx.training.metric_table import metric_table


def test_names_and_three_digits() -> None:
    metrics = {
        "test/auc": 0.91249,
        "test/balanced_accuracy": 0.5,
        "test/mae": 123.456,
        "test/f1": float("nan"),
        "loss": 2345.6,
    }
    assert metric_table(metrics).splitlines() == [
        "  AUC                  0.912",
        "  balanced accuracy    0.500",
        "  mean absolute error  123",
        "  F1                   –",
        "  loss                 2346",
    ]
    assert metric_table({}) == ""
