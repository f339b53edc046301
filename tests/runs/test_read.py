"""Runs are read exactly as they were written; unfinished, leaking and damaged ones are refused."""

import math
from pathlib import Path

import pytest

from e2e_abmilx.errors import InputError
from e2e_abmilx.runs.read import find_runs, is_finished, read_metrics, read_run, read_test_metrics

PREDICTIONS = "case,label,probability_no,probability_yes\n007,yes,0.25,0.75\nNA,no,0.5,0.5\n"
METRICS = "epoch,step,test/auc,test/threshold,val/auc\n0,4,,,0.5\n0,5,1.0,0.375,\n"
SETTINGS = "data: {class_path: SlideDataModule, init_args: {fold: 3, splits: null}}\n"
SPLITS = "case,split\n007,test\nNA,test\nnull,train\n"
FILES = {"predictions.csv": PREDICTIONS, "metrics.csv": METRICS, "fit.yaml": SETTINGS, "splits.csv": SPLITS}


def _write(folder: Path, **changed: str | None) -> Path:
    """Write a run of two cases; some files have other content or, by None, are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **{name.replace("_", "."): text for name, text in changed.items()}}.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_names_of_cases_and_labels_are_kept(tmp_path: Path) -> None:
    run = read_run(_write(tmp_path))
    assert run.predictions.index.tolist() == ["007", "NA"]
    assert run.predictions["label"].tolist() == ["yes", "no"]
    assert run.predictions["probability_yes"].tolist() == [0.75, 0.5]
    assert run.splits["split"].to_dict() == {"007": "test", "NA": "test", "null": "train"}
    assert run.data["fold"] == 3


def test_numbers_are_read_exactly(tmp_path: Path) -> None:
    risks = [0.1, 1 / 3, 1e-17 / 7, 123456.789012345]
    rows = "".join(f"c{number},1,0,{risk!r}\n" for number, risk in enumerate(risks))
    run = read_run(_write(tmp_path, predictions_csv=f"case,time,event,risk\n{rows}", splits_csv=None))
    assert run.predictions["risk"].tolist() == risks
    assert run.splits.empty


def test_the_threshold_is_that_of_the_test(tmp_path: Path) -> None:
    assert read_run(_write(tmp_path / "a")).predictions["threshold"].tolist() == [0.375, 0.375]
    without = METRICS.replace("test/threshold", "test/loss")
    assert read_run(_write(tmp_path / "b", metrics_csv=without)).predictions["threshold"].isna().all()


MULTI_LABEL = "case,label_ER,label_PR,probability_ER,probability_PR\n007,1,0,0.75,0.25\nNA,,1,0.5,0.5\n"


def test_several_labels_per_case(tmp_path: Path) -> None:
    table = read_run(_write(tmp_path, predictions_csv=MULTI_LABEL)).predictions
    assert table["label_ER"].tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
    assert table["label_PR"].tolist() == [0.0, 1.0]
    assert table["label"].tolist() == ["ER", "ER?, PR"]
    assert table["probability_PR"].tolist() == [0.25, 0.5]


REGRESSION = "case,value,predicted_value\n007,1.5,1.25\nNA,-2,0.1\n"


def test_values(tmp_path: Path) -> None:
    table = read_run(_write(tmp_path, predictions_csv=REGRESSION)).predictions
    assert table["value"].tolist() == [1.5, -2.0]
    assert table["predicted_value"].tolist() == [1.25, 0.1]


@pytest.mark.parametrize(
    ("changed", "finished"),
    [
        ({}, True),
        ({"metrics_csv": None}, True),  # another logger
        ({"predictions_csv": None}, False),
        ({"metrics_csv": METRICS.rpartition("0,5")[0]}, False),  # ended before the row was written
        ({"metrics_csv": METRICS.removesuffix(",0.375,\n")}, False),  # or within it
        ({"metrics_csv": ""}, False),
    ],
)
def test_finished_means_tested(changed: dict[str, str | None], finished: bool, tmp_path: Path) -> None:
    assert is_finished(_write(tmp_path, **changed)) is finished


def test_a_cross_validation_is_replaced_by_its_folds_in_order(tmp_path: Path) -> None:
    for fold in (0, 2, 10):
        _write(tmp_path / f"a/fold-{fold}")
    _write(tmp_path / "b")
    folds = [tmp_path / f"a/fold-{fold}" for fold in (0, 2, 10)]
    assert find_runs([tmp_path / "a", tmp_path / "b"]) == [*folds, tmp_path / "b"]
    with pytest.raises(InputError, match="fold-2 is named twice"):
        find_runs([tmp_path / "a", tmp_path / "b/../a/fold-2"])
    (tmp_path / "a/fold-2/predictions.csv").unlink()
    assert find_runs([tmp_path / "a"]) == folds  # so that reading them reports the unfinished one
    with pytest.raises(InputError, match=r"holds no predictions.csv and no fold-0"):
        find_runs([tmp_path / "c"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_leak_is_refused(split: str, tmp_path: Path) -> None:
    leaking = SPLITS.replace("007,test", f"007,{split}")
    with pytest.raises(InputError, match=rf"1 tested cases are in another split of splits.csv, first 007 \({split}\)"):
        read_run(_write(tmp_path, splits_csv=leaking))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predictions_csv": None}, "predictions.csv is missing; a run writes it"),
        ({"predictions_csv": "case,score\na,1\n"}, "has the columns case, score; a report needs"),
        ({"predictions_csv": PREDICTIONS + "007,no,0.1,0.9\n"}, "two rows of case 007"),
        ({"predictions_csv": PREDICTIONS.replace("007,yes", "007,maybe")}, "first 007, have a label that is not one of"),
        ({"predictions_csv": PREDICTIONS.replace("007,yes", "007,")}, "first 007, have a label that is not one of"),
        ({"predictions_csv": PREDICTIONS.replace("0.75", "nan")}, "1 of 2 cases, first 007"),
        ({"predictions_csv": PREDICTIONS.replace("0.75", "high")}, "1 of 2 cases, first 007"),
        ({"predictions_csv": MULTI_LABEL.replace("007,1", "007,2")}, "1 of 2 cases, first 007"),
        ({"predictions_csv": MULTI_LABEL.replace("0.25", "")}, "1 of 2 cases, first 007"),
        ({"predictions_csv": MULTI_LABEL.replace("probability_PR", "score_PR")}, "has the columns case, label_ER, label_PR"),
        ({"predictions_csv": REGRESSION.replace("-2", "")}, "1 of 2 cases, first NA"),
        ({"predictions_csv": REGRESSION.replace("0.1", "high")}, "1 of 2 cases, first NA"),
        ({"predictions_csv": REGRESSION.replace("value,pred", "truth,pred")}, "a report needs .* case, value and predicted"),
        ({"splits_csv": "case,split\n007,test\n"}, r"first NA \(none\)"),
        ({"fit_yaml": None}, "fit.yaml is missing; name a folder that `e2e-abmilx fit` wrote"),
        ({"fit_yaml": "data: [}"}, "fit.yaml is not valid YAML"),
        ({"fit_yaml": "just text"}, "no settings data.init_args"),
    ],
)  # fmt: skip
def test_damaged_runs_are_refused(changed: dict[str, str | None], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_run(_write(tmp_path, **changed))


def test_metrics_of_earlier_runs_have_their_present_names(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/share_holding_95,test/accuracy_macro,test/kappa,test/kappa_quadratic\n0,1,0.5,,,\n1,2,,0.75,0.5,0.25\n"
    )
    assert list(read_metrics(tmp_path)) == [
        "epoch", "step", "train/fraction_holding_95", "test/balanced_accuracy", "test/kappa", "test/qwk",
    ]  # fmt: skip
    assert read_test_metrics(tmp_path) == {"test/balanced_accuracy": "0.75", "test/kappa": "0.5", "test/qwk": "0.25"}


def test_a_run_without_metrics_has_an_empty_table(tmp_path: Path) -> None:
    assert read_metrics(tmp_path).empty
