from pathlib import Path

import pandas as pd
import pytest
import torch

from e2e_abmilx.cohort import CohortError
from e2e_abmilx.datamodules import SlideDataModule


def _ready(data: SlideDataModule, stage: str = "fit") -> SlideDataModule:
    data.prepare_data()
    data.setup(stage)
    return data


def _data(cohort: Path, stores: Path, **how: object) -> SlideDataModule:
    settings = {"columns": {"label": "lesion"}, "patches_per_bag": 8, "batch_size": 2, "num_workers": 0, **how}
    return SlideDataModule(stores, cohort / "labels.csv", **settings)  # type: ignore[arg-type]


def test_time_bins_come_from_training_events(cohort: Path, stores: Path) -> None:
    data = _ready(_data(cohort, stores, target="survival", time_bins=3))
    assert data.classes == ("0", "1", "2")
    events = sorted(case.time for case in data.cases["train"] if case.event)
    bins = [target.label for target in data.targets["train"] if target.event]
    assert [bins.count(k) for k in range(3)] == pytest.approx([len(events) / 3] * 3, abs=1)
    for case, target in zip(data.cases["test"], data.targets["test"], strict=True):
        assert (target.time, target.event) == (case.time, case.event)


def test_made_folds(cohort: Path, stores: Path) -> None:
    columns = {"label": "lesion", "split": None}
    tested = [
        {case.id for case in _ready(_data(cohort, stores, fold=fold, folds=3, columns=columns)).cases["test"]}
        for fold in range(3)
    ]
    assert len(set.union(*tested)) == sum(map(len, tested)) == 24


def test_folds_follow_split_seed_and_not_seed(cohort: Path, stores: Path) -> None:
    columns = {"label": "lesion", "split": None}

    def tested(**seeds: int) -> list[str]:
        data = _ready(_data(cohort, stores, fold=0, folds=3, columns=columns, **seeds))
        return [case.id for case in data.cases["test"]]

    assert tested() == tested(split_seed=0) == tested(seed=1) == tested(seed=2)
    assert tested() != tested(split_seed=1) == tested(split_seed=1, seed=1)


def test_draws_follow_seed_and_not_split_seed(cohort: Path, stores: Path) -> None:
    batches = [
        [bag.coords for bag in _ready(_data(cohort, stores, **seeds)).train_dataloader()]
        for seeds in ({}, {"split_seed": 1}, {"seed": 1})
    ]
    assert all(torch.equal(one, other) for one, other in zip(batches[0], batches[1], strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(batches[0], batches[2], strict=True))


def test_cases_without_slides_are_refused_or_left_out(cohort: Path, stores: Path, tmp_path: Path) -> None:
    text = (cohort / "labels.csv").read_text().replace("slide-003", "slide-O03")
    (tmp_path / "labels.csv").write_text(text)
    how = {"columns": {"label": "lesion"}, "num_workers": 0}
    with pytest.raises(CohortError) as refusal:
        _ready(SlideDataModule(stores, tmp_path / "labels.csv", **how))  # type: ignore[arg-type]
    assert "no slide 'slide-O03'" in str(refusal.value)
    assert "is it 'slide-003'?" in str(refusal.value)
    assert "slide 'slide-003'" in str(refusal.value)
    data = _ready(SlideDataModule(stores, tmp_path / "labels.csv", skip_missing=True, **how))  # type: ignore[arg-type]
    assert len(data.cases["all"]) == 23


def test_made_folds_do_not_replace_the_tables_test_split(cohort: Path, stores: Path) -> None:
    with pytest.raises(CohortError, match=r"has splits of its own .* columns: \{split: null\}"):
        _ready(_data(cohort, stores, fold=0, folds=3))


def test_a_fold_column_is_used(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cohort / "labels.csv").drop(columns="split")
    table["fold"] = table.index % 4
    table.to_csv(tmp_path / "labels.csv", index=False)
    how = {"columns": {"label": "lesion"}, "num_workers": 0, "folds": 4}
    for fold in range(4):
        data = _ready(SlideDataModule(stores, tmp_path / "labels.csv", fold=fold, **how))  # type: ignore[arg-type]
        assert {case.id for case in data.cases["test"]} == set(table["case"][table["fold"] == fold])
        assert {case.id for case in data.cases["val"]} == set(table["case"][table["fold"] == (fold + 1) % 4])
    for stage in ("fit", "validate", "test"):
        with pytest.raises(CohortError, match=r"say which fold to test on \(data.fold: 0\)"):
            _ready(SlideDataModule(stores, tmp_path / "labels.csv", **how), stage)  # type: ignore[arg-type]
    assert len(_ready(SlideDataModule(stores, tmp_path / "labels.csv", **how), "predict").cases["all"]) == 24  # type: ignore[arg-type]


def test_all_cases_of_a_table_without_splits_are_evaluated(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    pd.read_csv(cohort / "labels.csv").drop(columns="split").to_csv(table, index=False)
    data = SlideDataModule(stores, table, columns={"label": "lesion"}, num_workers=0)
    for stage, loader in (("validate", "val"), ("test", "test"), ("predict", "predict")):
        _ready(data, stage)  # one data module in several stages of a trainer
        assert len({name for bag in getattr(data, f"{loader}_dataloader")() for name in bag.cases}) == 24
    with pytest.raises(CohortError, match=r"split '' is not one of train, val, test"):
        _ready(data, "fit")
    made = _ready(SlideDataModule(stores, table, columns={"label": "lesion"}, num_workers=0, fold=0, folds=3), "test")
    assert 4 <= len(made.cases["test"]) <= 12


def test_the_tables_splits_are_used_in_evaluation(cohort: Path, stores: Path) -> None:
    fitted, tested = _ready(_data(cohort, stores)), _ready(_data(cohort, stores), "test")
    assert fitted.cases == tested.cases


def test_one_patient_in_two_splits_is_refused_at_every_stage(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cohort / "labels.csv")
    table["patient"] = table.index // 2
    table.to_csv(tmp_path / "labels.csv", index=False)
    for stage in ("fit", "validate", "test", "predict"):
        with pytest.raises(CohortError, match="is in two splits: case"):
            _ready(SlideDataModule(stores, tmp_path / "labels.csv", columns={"label": "lesion"}, num_workers=0), stage)


def test_survival_columns_of_a_classification_table_are_not_read(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cohort / "labels.csv")
    table["time"], table["event"] = "10:31", "scanned"
    table.to_csv(tmp_path / "labels.csv", index=False)
    how = {"columns": {"label": "lesion"}, "num_workers": 0}
    data = _ready(SlideDataModule(stores, tmp_path / "labels.csv", **how))  # type: ignore[arg-type]
    assert data.classes == ("0", "1")
    with pytest.raises(CohortError, match="event 'scanned' is neither"):
        _ready(SlideDataModule(stores, tmp_path / "labels.csv", target="survival", **how))  # type: ignore[arg-type]


def test_classes_that_yaml_misread_are_refused(cohort: Path, stores: Path) -> None:
    assert _ready(_data(cohort, stores, classes=[1, 0])).classes == ("1", "0")
    with pytest.raises(CohortError, match=r"YAML reads no, yes, .* put the names in quotes"):
        _data(cohort, stores, classes=[False, True])


def test_validation_is_held_out_from_training(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text((cohort / "labels.csv").read_text().replace(",val,", ",train,"))
    data = _ready(SlideDataModule(stores, table, columns={"label": "lesion"}, val_fraction=0.25, num_workers=0))
    names = {split: {case.id for case in data.cases[split]} for split in ("train", "val", "test")}
    assert len(names["val"]) == pytest.approx(0.25 * len(names["train"] | names["val"]), abs=1)
    assert not names["train"] & names["val"]
    whole = _ready(_data(cohort, stores))
    assert names["test"] == {case.id for case in whole.cases["test"]}
    data.write_splits(tmp_path / "splits.csv")
    again = _ready(_data(cohort, stores, splits=tmp_path / "splits.csv"))
    assert {case.id for case in again.cases["val"]} == names["val"]


def test_selection_on_test_is_possible_and_warns(cohort: Path, stores: Path, caplog: pytest.LogCaptureFixture) -> None:
    honest = _ready(_data(cohort, stores))
    data = _ready(_data(cohort, stores, select_on_test=True))
    unseen = {case.id for split in ("val", "test") for case in honest.cases[split]}
    assert {case.id for case in data.cases["val"]} == {case.id for case in data.cases["test"]} == unseen
    assert {case.id for case in data.cases["train"]} == {case.id for case in honest.cases["train"]}
    assert "do not report it as a test" in caplog.text


def test_balanced_draws(cohort: Path, stores: Path) -> None:
    data = _ready(_data(cohort, stores, balanced=True, batch_size=1))
    labels = [int(bag.label) for bag in data.train_dataloader()]
    assert abs(labels.count(0) - labels.count(1)) <= 1


def _multi_label_table(folder: Path, cohort: Path) -> Path:
    """Write the synthetic cohort with the columns lesion and severe; severe is unknown for every fourth case."""
    table = pd.read_csv(cohort / "labels.csv")
    table["severe"] = (table["grade"] == 2).astype("Int64").where(table.index % 4 != 0)
    table.to_csv(folder / "multi.csv", index=False)
    return folder / "multi.csv"


def test_multi_label_cohorts(cohort: Path, stores: Path, tmp_path: Path) -> None:
    how = {"target": "multi_label", "classes": ["severe", "lesion"], "patches_per_bag": 4, "batch_size": 2}
    table = _multi_label_table(tmp_path, cohort)
    data = _ready(SlideDataModule(stores, table, num_workers=0, **how))  # type: ignore[arg-type]
    assert data.classes == ("severe", "lesion")
    rows = pd.read_csv(table).set_index("case")[["severe", "lesion"]].fillna(-1).astype(int)
    for batch in data.train_dataloader():
        assert batch.label.tolist() == rows.loc[list(batch.cases)].to_numpy().tolist()
    for bag in data.test_dataloader():
        assert bag.label.tolist() == rows.loc[list(bag.cases)].to_numpy().tolist()
    folds = [
        _ready(SlideDataModule(stores, table, num_workers=0, fold=fold, folds=3, columns={"split": None}, **how))  # type: ignore[arg-type]
        for fold in range(3)
    ]
    severe = [sum(case.labels[0] == 1 for case in one.cases["test"]) for one in folds]
    assert max(severe) - min(severe) <= 1


def test_multi_label_cohorts_need_their_columns(cohort: Path, stores: Path) -> None:
    for classes in (None, [], ["lesion", "lesion"]):
        with pytest.raises(ValueError, match=r"for target multi_label; name the columns"):
            _data(cohort, stores, target="multi_label", classes=classes)
    with pytest.raises(ValueError, match="balanced draws classes equally often"):
        _data(cohort, stores, target="multi_label", classes=["lesion"], balanced=True)
    with pytest.raises(CohortError, match=r"no column 'lesions' \(is it 'lesion'\?\)"):
        _ready(_data(cohort, stores, target="multi_label", classes=["lesions"]))
    with pytest.raises(CohortError, match="grade '2' is neither 1"):
        _ready(_data(cohort, stores, target="multi_label", classes=["lesion", "grade"]))
