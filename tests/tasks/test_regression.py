"""RegressionTask through the command line: the scale of the values, scores, metrics, refusals and resumed fits."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from feature_runs import column, fit, write_config
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from numpy.typing import NDArray
from slide_runs import message_of

from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import DSMIL, DTFD, MeanPool, MultiBranchCLAM
from e2e_abmilx.main import main
from e2e_abmilx.tasks import RegressionTask
from e2e_abmilx.training.callbacks import BestCheckpoint

VALUES = np.round(40 + 12 * np.linspace(-1, 1, 24)[np.random.default_rng(0).permutation(24)], 2)
TRAINED = VALUES[:12]


def _config(folder: Path, *, text: Callable[[float], str] = repr, **model: Any) -> Path:
    """Write a regression config: 12 training, 6 validation and 6 test cases, whose features shift with their values."""
    path = write_config(folder)
    rows, generator = ["slide,tmb,split"], torch.Generator().manual_seed(0)
    for number, value in enumerate(VALUES.tolist()):
        features = torch.randn(6, 8, generator=generator) / 4
        features[:, 0] += (value - 40) / 6
        torch.save(features, folder / f"features/s{number:02}.pt")
        part = "train" if number < 12 else "val" if number < 18 else "test"
        rows.append(f"s{number:02},{text(value)},{part}")
    (folder / "labels.csv").write_text("\n".join(rows))
    content = yaml.safe_load(path.read_text())
    content["model"]["class_path"] = "RegressionTask"
    content["model"]["init_args"] |= {"num_outputs": 1, **model}
    content["data"]["init_args"] |= {"target": "regression", "columns": {"label": "tmb"}}
    path.write_text(yaml.safe_dump(content))
    return path


def _table(run: Path) -> dict[str, tuple[str, float]]:
    """Return the truth, as it is written, and the predicted value of each case."""
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "value", "predicted_value"]
    return {row["case"]: (row["value"], float(row["predicted_value"])) for row in rows}


def _scale(checkpoint: Path) -> list[float]:
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    return [float(weights["value_mean"]), float(weights["value_std"])]


def test_a_fit_learns_and_reports_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", str(_config(tmp_path)), "--trainer.max_epochs", "30"])
    run = tmp_path / "run"
    table = _table(run)
    assert [text for text, _ in table.values()] == [f"{value:.7g}" for value in VALUES[18:].tolist()]
    value, predicted = VALUES[18:], np.array([number for _, number in table.values()])
    expected = {
        "r2": 1 - np.sum((value - predicted) ** 2) / np.sum((value - value.mean()) ** 2),
        "pearson": scipy.stats.pearsonr(predicted, value).statistic,
        "spearman": scipy.stats.spearmanr(predicted, value).statistic,
        "mae": np.abs(value - predicted).mean(),
        "loss": np.mean((value - predicted) ** 2) / TRAINED.std() ** 2,
    }
    assert expected["r2"] > 0.9
    for name, number in expected.items():
        assert column(run, f"test/{name}") == pytest.approx([number], abs=2e-4)
    assert _scale(run / "best.ckpt") == pytest.approx([TRAINED.mean(), TRAINED.std()], rel=1e-6)
    assert (run / "figures/predicted_values.png").is_file()
    capsys.readouterr()
    main(["report", "--runs", str(run), "--html", "true"])
    shown = capsys.readouterr().out
    assert f" {expected['r2']:.3f}  " in shown
    assert "R²: coefficient of determination" in shown
    assert "absolute error" in (run / "report.html").read_text()


def test_a_prediction_without_labels_has_no_truth(tmp_path: Path) -> None:
    config = _config(tmp_path)
    fit(config, "--trainer.max_epochs", "1")
    words = ["--ckpt_path", str(tmp_path / "run/best.ckpt"), "--trainer.default_root_dir", str(tmp_path / "new")]
    main(["predict", "--config", str(config), *words, "--data.labels", "null"])
    table = _table(tmp_path / "new/predict")
    assert len(table) == 24
    assert {text for text, _ in table.values()} == {""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.num_outputs", "2"], "a regression has one output, the value, and not 2; set model.num_outputs to 1"),
        (["--model.head", "CLAM"], "CLAM labels patches by the class of their bag, .* take GatedABMIL"),
        (["--data.target", "label"], "RegressionTask learns from the target regression and the data give label"),
        (["--data.classes", "[a, b]"], "for target regression, which has none"),
        (["--data.balanced", "true"], "balanced draws classes equally often, and target regression has none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    config = _config(tmp_path)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(" ".join(message_of(["fit", "--config", str(config), *words]).split()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda value: f'"{value:g}"'.replace(".", ","), r"labels.csv:\d+: value '\d+,\d+' is not a number; write a decimal"),
        (lambda value: f"{value} mut/Mb", r"labels.csv:2: value '[\d.]+ mut/Mb' is not a number; write the number alone"),
        (lambda value: "inf" if value == VALUES[2] else repr(value), "labels.csv:4: value 'inf' is not a number"),
        (lambda value: "NA" if value == VALUES[20] else repr(value), "1 of 24 cases have no value, first s20"),
        (lambda value: "1" if value in TRAINED else repr(value), r"labels.csv: all 12 training cases have the value 1,"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_learnt_are_refused(text: Callable[[float], str], message: str, tmp_path: Path) -> None:
    config = _config(tmp_path, text=text)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(message_of(["fit", "--config", str(config)]))


def test_a_resumed_fit_keeps_mean_and_std(tmp_path: Path) -> None:
    config, run = _config(tmp_path), tmp_path / "run"
    fit(config, "--trainer.max_epochs", "1")
    before = _scale(run / "last.ckpt")
    _config(tmp_path, text=lambda value: repr(2 * value))  # as if the table had been corrected in between
    fit(config, "--trainer.max_epochs", "2", "--ckpt_path", str(run / "last.ckpt"))
    assert _scale(run / "last.ckpt") == before
    fit(config, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(tmp_path / "fresh"))
    assert _scale(tmp_path / "fresh/last.ckpt") == pytest.approx([2 * number for number in before])


def test_the_unit_of_the_table_changes_nothing_but_the_unit(tmp_path: Path) -> None:
    predicted = []
    for name, text in {"a": repr, "b": lambda value: repr(round(1000 * value - 7, 4))}.items():
        (tmp_path / name).mkdir()
        fit(_config(tmp_path / name, text=text), "--trainer.max_epochs", "3")
        predicted.append(np.array([number for _, number in _table(tmp_path / name / "run").values()]))
    assert predicted[1] == pytest.approx(1000 * predicted[0] - 7, rel=1e-4)
    losses = [column(tmp_path / name / "run", "train/loss_epoch") for name in "ab"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_another_loss_is_used_on_standardised_values(tmp_path: Path) -> None:
    config = _config(tmp_path, loss={"class_path": "torch.nn.HuberLoss", "init_args": {"delta": 0.5}})
    fit(config, "--trainer.max_epochs", "1")
    error = [(float(text) - number) / TRAINED.std() for text, number in _table(tmp_path / "run").values()]
    expected = torch.nn.functional.huber_loss(torch.tensor(error), torch.zeros(len(error)), delta=0.5)
    assert column(tmp_path / "run", "test/loss") == pytest.approx([float(expected)], rel=1e-3)


def test_cases_of_one_value_leave_metrics_undefined(tmp_path: Path) -> None:
    validated = VALUES[12:18].tolist()
    fit(_config(tmp_path, text=lambda value: "40" if value in validated else repr(value)), "--trainer.max_epochs", "1")
    assert (tmp_path / "run/best.ckpt").is_file()  # chosen by the loss
    assert all(np.isnan(column(tmp_path / "run", "val/r2")))
    assert np.isfinite(column(tmp_path / "run", "test/r2")).all()


def _trained(folder: Path, head: Any, *callbacks: Any) -> tuple[RegressionTask, NDArray[np.float64]]:
    """Fit from Python, and return the task and the values that it predicts for the test cases."""
    _config(folder)
    torch.manual_seed(0)
    task = RegressionTask(Precomputed(8), head, 1, optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2))
    data = FeatureDataModule(
        folder / "features", folder / "labels.csv", target="regression", columns={"label": "tmb"}, batch_size=2,
        num_workers=0,
    )  # fmt: skip
    trainer = Trainer(
        default_root_dir=folder, max_epochs=20, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[BestCheckpoint(), *callbacks],
    )  # fmt: skip
    trainer.fit(task, data)
    predictions = trainer.predict(task, data.test_dataloader(), ckpt_path="best", weights_only=True)
    assert predictions is not None
    return task, np.array([one.scores["predicted_value"] for one in predictions])  # type: ignore[union-attr]


@pytest.mark.parametrize("head", [DTFD, DSMIL])
def test_heads_with_a_second_loss_learn(head: type, tmp_path: Path) -> None:
    _, predicted = _trained(tmp_path, head)
    assert np.corrcoef(predicted, VALUES[18:])[0, 1] > 0.9
    assert np.abs(predicted - VALUES[18:]).mean() < VALUES[18:].std()


def test_averaged_weights_have_the_same_scale(tmp_path: Path) -> None:
    _, predicted = _trained(tmp_path, MeanPool, EMAWeightAveraging(decay=0.9))
    assert _scale(tmp_path / "best.ckpt") == pytest.approx([TRAINED.mean(), TRAINED.std()], rel=1e-6)
    assert np.corrcoef(predicted, VALUES[18:])[0, 1] > 0.9


def test_a_checkpoint_predicts_in_the_unit_of_its_table(tmp_path: Path) -> None:
    task, _ = _trained(tmp_path, MeanPool)
    loaded = RegressionTask.load_from_checkpoint(tmp_path / "best.ckpt", encoder=Precomputed(8), head=MeanPool)
    logits = torch.tensor([[0.0], [1.0]])
    expected = [TRAINED.mean(), TRAINED.mean() + TRAINED.std()]
    assert loaded.bag_scores(logits)[:, 0].tolist() == pytest.approx(expected, rel=1e-6)
    assert loaded.score_names() == task.score_names() == ["predicted_value"]


def test_heads_that_need_classes_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="MultiBranchCLAM labels patches by the class of their bag"):
        RegressionTask(Precomputed(8), MultiBranchCLAM, 1)
