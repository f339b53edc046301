from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer

from e2e_abmilx.cohort import CohortError
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.inputs import FeatureInput, PatchInput
from e2e_abmilx.data.seen_cases import SeenCases
from e2e_abmilx.datamodules import BagDataModule, FeatureDataModule, SlideDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.tasks import ClassificationTask, SurvivalTask

Data = TypeVar("Data", bound=BagDataModule)


def _ready(data: Data, stage: str = "fit") -> Data:
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


_CONTRACT = InputContract("label", ("0", "1"))


def _obeying(data: BagDataModule, contract: InputContract, stage: str = "test") -> BagDataModule:
    data.contract = contract
    data.setup(stage)
    return data


def _features(
    folder: Path, cases: int = 12, splits: str = "train,val,test", prefix: str = "s", **columns: object
) -> Path:
    """Write features of slides of two classes, and labels.csv, whose splits repeat in order."""
    (folder / "features").mkdir(parents=True, exist_ok=True)
    words = splits.split(",")
    rows = []
    for k in range(cases):
        torch.save(torch.randn(3, 4), folder / "features" / f"{prefix}{k}.pt")
        row = {"slide": f"{prefix}{k}", "label": k // 3 % 2, "time": k + 1, "event": 1, "split": words[k % len(words)]}
        rows.append({**row, **columns})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


def _feature_data(folder: Path, **how: object) -> FeatureDataModule:
    return FeatureDataModule(folder / "features", folder / "labels.csv", num_workers=0, **how)  # type: ignore[arg-type]


def test_the_models_classes_decide_outside_fit(tmp_path: Path) -> None:
    contract = InputContract("label", ("1", "2", "0"), input=FeatureInput(4))
    data = _obeying(_feature_data(_features(tmp_path)), contract)
    assert data.classes == ("1", "2", "0")
    assert {target.label for target in data.targets["test"]} == {0, 2}
    data.setup("fit")  # a fit takes those of the table
    assert data.classes == ("0", "1")


def test_data_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    _features(tmp_path)
    for contract, how, reason in (
        (InputContract("survival", ("0",)), {}, "trained on the target survival, and data.target is label"),
        (InputContract("label", ("1", "0")), {"classes": ["0", "1"]}, r"classes are \['1', '0'\], in this order"),
        (
            InputContract("label", ("0", "1"), input=FeatureInput(5)),
            {},
            "takes 5 features per patch, and the files have 4",
        ),
        (InputContract("label", ("0", "1"), input=PatchInput((0.5,), 64)), {}, "use a SlideDataModule"),
    ):
        for stage in ("validate", "test", "predict"):
            with pytest.raises(ContractError, match=reason):
                _obeying(_feature_data(tmp_path, **how), contract, stage)
        _obeying(_feature_data(tmp_path, **how), contract, "fit")
    with pytest.raises(CohortError, match=r"label '0' .* is not one of the classes \['a', 'b'\]"):
        _obeying(_feature_data(tmp_path), InputContract("label", ("a", "b")))


def test_a_cache_of_another_resolution_is_refused(cohort: Path, stores: Path) -> None:
    contract = InputContract("label", ("0", "1"), input=PatchInput((0.25, 1.0), 64))
    with pytest.raises(ContractError, match=r"at 0\.25 µm/px.*at 0\.5 µm/px.*--mpp \[0\.25,1\] --patch_size 64"):
        _obeying(_data(cohort, stores), contract)


def test_slides_without_a_table_are_predicted_with_the_models_classes(tmp_path: Path) -> None:
    data = FeatureDataModule(_features(tmp_path) / "features", num_workers=0)
    _obeying(data, InputContract("survival", ("0", "1"), (7.0,), FeatureInput(4)), "predict")
    assert (data.classes, data.time_edges) == (("0", "1"), (7.0,))
    assert {target.label for target in data.targets["all"]} == {-1}


def _seen(data: BagDataModule, *splits: str) -> InputContract:
    """Return the contract of a model that has seen some splits of the data."""
    cases = [case for split in splits for case in data.cases[split]]
    return _CONTRACT.with_seen(SeenCases.of(cases, data.slide_marks(cases)))


def test_a_model_is_not_tested_on_its_training_cases(tmp_path: Path) -> None:
    data = _ready(_feature_data(_features(tmp_path)))
    for splits, number in ((("train", "val"), 0), (("train", "val", "test"), 4)):
        contract = _seen(data, *splits)
        for again in (data, _feature_data(tmp_path)):
            if number:
                with pytest.raises(ContractError) as refusal:
                    _obeying(again, contract)
                assert "trained or validated on 4 of the 4 test cases, first s2 (slide 's2'" in str(refusal.value)
                assert "test it on the split or fold that it was not trained on" in str(refusal.value)
            else:
                _obeying(again, contract)
        for stage in ("validate", "predict"):
            _obeying(_feature_data(tmp_path), contract, stage)
    _obeying(_feature_data(tmp_path, select_on_test=True), _seen(data, "train", "val", "test"))


def test_a_refusal_is_repeated(tmp_path: Path) -> None:
    """As when a cell of a notebook is run again."""
    data = _ready(_feature_data(_features(tmp_path)))
    contract = _seen(data, "test")
    fresh = _feature_data(tmp_path)
    for again in (data, data, fresh, fresh):
        with pytest.raises(ContractError, match="trained or validated on"):
            _obeying(again, contract)
    _obeying(data, _CONTRACT)
    with pytest.raises(ContractError, match="trained or validated on"):
        _obeying(data, contract)
    assert _obeying(data, _CONTRACT).targets["test"]


def test_slides_that_only_share_names_are_tested(cohort: Path, stores: Path, tmp_path: Path) -> None:
    trained = _ready(_data(cohort, stores))
    contract = _seen(trained, "train", "val", "test")
    with pytest.raises(ContractError, match="trained or validated on"):
        _obeying(_data(cohort, stores), contract)
    assert contract.seen is not None
    elsewhere = dict.fromkeys(contract.seen.slides, "0ff0" * 16)  # the look of slides of another cohort
    seen = SeenCases(contract.seen.cases, contract.seen.names, elsewhere)
    assert _obeying(_data(cohort, stores), contract.with_seen(seen)).targets["test"]


def test_a_made_fold_of_an_external_table_is_refused(tmp_path: Path) -> None:
    own, other = _features(tmp_path / "own", splits="", cases=12), _features(tmp_path / "other", splits="", prefix="x")
    fold = {"fold": 0, "folds": 3}
    contract = _seen(_ready(_feature_data(own, **fold)), "train", "val")
    _obeying(_feature_data(own, **fold), contract)
    with pytest.raises(
        ContractError, match=r"data\.fold 0 would test one fold of .*labels\.csv only.*set data\.fold to null"
    ):
        _obeying(_feature_data(other, **fold), contract)
    assert len(_obeying(_feature_data(other), contract).cases["test"]) == 12
    _ready(_feature_data(other, **fold)).write_splits(tmp_path / "splits.csv")
    _obeying(_feature_data(other, splits=tmp_path / "splits.csv"), contract)  # splits that the user states


def test_another_fold_of_the_training_table_is_refused(tmp_path: Path) -> None:
    _features(tmp_path, splits="")
    contract = _seen(_ready(_feature_data(tmp_path, fold=0, folds=3)), "train", "val")
    with pytest.raises(ContractError, match="trained or validated on 4 of the 4 test cases"):
        _obeying(_feature_data(tmp_path, fold=1, folds=3), contract)


def test_a_fold_column_of_an_external_table_is_refused_with_a_cure_that_works(tmp_path: Path) -> None:
    own, other = _features(tmp_path / "own", splits=""), _features(tmp_path / "other", splits="0,1,2", prefix="x")
    (other / "labels.csv").write_text((other / "labels.csv").read_text().replace("split", "fold"))
    contract = _seen(_ready(_feature_data(own, fold=0, folds=3)), "train", "val")
    with pytest.raises(ContractError, match=r"columns: \{fold: null\}"):
        _obeying(_feature_data(other, fold=0, folds=3), contract)
    cured = _obeying(_feature_data(other, columns={"fold": None}), contract)
    assert len(cured.cases["test"]) == 12


def _trainer(folder: Path) -> Trainer:
    return Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def _survival_task() -> SurvivalTask:
    return SurvivalTask(Precomputed(4), ABMIL, 3)


def _survival_data(folder: Path) -> FeatureDataModule:
    return _feature_data(folder, target="survival", time_bins=3)


def test_time_bins_come_with_a_checkpoint_that_is_restored_later(tmp_path: Path) -> None:
    """A cohort without training cases has no bins of its own; Lightning restores the checkpoint after setup."""
    trainer = _trainer(tmp_path)
    trainer.fit(_survival_task(), _survival_data(_features(tmp_path / "own", 18)))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    edges = trainer.datamodule.time_edges  # type: ignore[attr-defined]
    other = _features(tmp_path / "other", 18, splits="test", prefix="x")
    for command in ("test", "predict"):
        task, data = _survival_task(), _survival_data(other)
        getattr(_trainer(tmp_path), command)(task, data, ckpt_path=str(tmp_path / "x.ckpt"))
        assert data.time_edges == task.time_edges == edges
        assert data.classes == ("0", "1", "2")
        times = [case.time for case in data.cases["test"]]
        assert [target.label for target in data.targets["test"]] == np.digitize(times, edges).tolist()


def test_without_a_checkpoint_the_missing_bins_are_refused(tmp_path: Path) -> None:
    other = _features(tmp_path, 18, splits="test")
    with pytest.raises(CohortError, match="cannot fill 3 time bins"):
        _trainer(tmp_path).test(_survival_task(), _survival_data(other))
    with pytest.raises(CohortError, match="cannot fill 3 time bins"):
        _ready(_survival_data(other), "test")


def test_a_loaded_task_brings_its_bins(tmp_path: Path) -> None:
    trainer, task = _trainer(tmp_path), _survival_task()
    trainer.fit(task, _survival_data(_features(tmp_path / "own", 18)))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = SurvivalTask.load_from_checkpoint(tmp_path / "x.ckpt", encoder=Precomputed(4), head=ABMIL)
    data = _survival_data(_features(tmp_path / "other", 18, splits="test", prefix="x"))
    _trainer(tmp_path).test(loaded, data, verbose=False)
    assert data.time_edges == task.time_edges


def test_a_restored_checkpoint_refuses_its_training_cases(tmp_path: Path) -> None:
    trainer, folder = _trainer(tmp_path), _features(tmp_path / "own", 18)
    trainer.fit(ClassificationTask(Precomputed(4), ABMIL, 2), _feature_data(folder))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    table = folder / "labels.csv"
    _trainer(tmp_path).test(
        ClassificationTask(Precomputed(4), ABMIL, 2), _feature_data(folder), ckpt_path=str(tmp_path / "x.ckpt")
    )
    table.write_text(table.read_text().replace("train", "test"))
    with pytest.raises(ContractError, match="trained or validated on 6 of the 12 test cases"):
        _trainer(tmp_path).test(
            ClassificationTask(Precomputed(4), ABMIL, 2), _feature_data(folder), ckpt_path=str(tmp_path / "x.ckpt")
        )
