from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from e2e_abmilx.cohort import CohortError
from e2e_abmilx.data.bag import BagError
from e2e_abmilx.data.features import FeatureError
from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule, SyntheticDataModule
from e2e_abmilx.slides import Slide
from e2e_abmilx.store import write_store


def _ready(data: SlideDataModule, stage: str = "fit") -> SlideDataModule:
    data.prepare_data()
    data.setup(stage)
    return data


def _data(cohort: Path, stores: Path, **how: object) -> SlideDataModule:
    settings = {
        "columns": {"label": "lesion"},
        "patches_per_bag": 8,
        "batch_size": 2,
        "num_workers": 0,
        **how,
    }
    return SlideDataModule(stores, cohort / "labels.csv", **settings)  # type: ignore[arg-type]


def test_bags_of_every_split(cohort: Path, stores: Path) -> None:
    data = _ready(_data(cohort, stores))
    batches = list(data.train_dataloader())
    assert all(batch.patches.shape[2:] == (3, 64, 64) for batch in batches)
    assert all(batch.mask.shape[0] == 2 for batch in batches)
    splits = {split: {case.id for case in data.cases[split]} for split in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == 24
    for loader, split in ((data.val_dataloader(), "val"), (data.test_dataloader(), "test")):
        assert {name for bag in loader for name in bag.cases} == splits[split]
    assert {name for bag in data.predict_dataloader() for name in bag.cases} == set.union(*splits.values())


def test_workers_change_nothing(cohort: Path, stores: Path) -> None:
    batches = []
    for workers in (0, 2):
        loader = _ready(_data(cohort, stores, num_workers=workers)).train_dataloader()
        loader.sampler.set_epoch(3)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert one.cases == other.cases
        assert torch.equal(one.patches, other.patches)


def test_survival_bins_come_from_training_events(cohort: Path, stores: Path) -> None:
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


def test_mismatches_stop_or_are_left_out(cohort: Path, stores: Path, tmp_path: Path) -> None:
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


def test_without_labels_every_store_can_be_predicted(stores: Path) -> None:
    data = _ready(SlideDataModule(stores, num_workers=0), "predict")
    assert {name for bag in data.predict_dataloader() for name in bag.cases} == {
        f"slide-{k:03d}" for k in range(24)
    }


def test_bad_input_is_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="holds no patch store; run `e2e-abmilx cache` first"):
        _ready(_data(cohort, tmp_path / "absent"))
    with pytest.raises(CohortError, match="not one of the classes"):
        _ready(_data(cohort, stores, classes=["0", "2"]))
    table = tmp_path / "labels.csv"
    table.write_text((cohort / "labels.csv").read_text().replace(",train,", ",test,"))
    with pytest.raises(CohortError, match="the train split has no case"):
        _ready(SlideDataModule(stores, table, columns={"label": "lesion"}))
    with pytest.raises(ValueError, match="patches_per_bag is 0"):
        _data(cohort, stores, patches_per_bag=0)
    with pytest.raises(ValueError, match="coarse_fraction is 1"):
        _data(cohort, stores, coarse_fraction=1.0)


def test_the_tables_own_test_split_outlives_folds(cohort: Path, stores: Path) -> None:
    with pytest.raises(CohortError, match=r"has splits of its own .* columns: \{split: null\}"):
        _ready(_data(cohort, stores, fold=0, folds=3))


def test_a_column_of_folds_is_used(cohort: Path, stores: Path, tmp_path: Path) -> None:
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


def test_a_table_without_splits_is_evaluated_whole(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    pd.read_csv(cohort / "labels.csv").drop(columns="split").to_csv(table, index=False)
    data = SlideDataModule(stores, table, columns={"label": "lesion"}, num_workers=0)
    for stage, loader in (("validate", "val"), ("test", "test"), ("predict", "predict")):
        _ready(data, stage)  # one data module after another, as of one trainer
        assert len({name for bag in getattr(data, f"{loader}_dataloader")() for name in bag.cases}) == 24
    with pytest.raises(CohortError, match=r"split '' is not one of train, val, test"):
        _ready(data, "fit")
    made = _ready(
        SlideDataModule(stores, table, columns={"label": "lesion"}, num_workers=0, fold=0, folds=3), "test"
    )
    assert 4 <= len(made.cases["test"]) <= 12


def test_splits_that_are_there_are_used_in_evaluation(cohort: Path, stores: Path) -> None:
    fitted, tested = _ready(_data(cohort, stores)), _ready(_data(cohort, stores), "test")
    assert fitted.cases == tested.cases


def test_one_patient_in_two_splits_is_refused_at_every_stage(
    cohort: Path, stores: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(cohort / "labels.csv")
    table["patient"] = table.index // 2
    table.to_csv(tmp_path / "labels.csv", index=False)
    for stage in ("fit", "validate", "test", "predict"):
        with pytest.raises(CohortError, match="is in two splits: case"):
            _ready(
                SlideDataModule(stores, tmp_path / "labels.csv", columns={"label": "lesion"}, num_workers=0),
                stage,
            )


def test_survival_columns_of_a_classification_table_are_not_touched(
    cohort: Path, stores: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(cohort / "labels.csv")
    table["time"], table["event"] = "10:31", "scanned"
    table.to_csv(tmp_path / "labels.csv", index=False)
    how = {"columns": {"label": "lesion"}, "num_workers": 0}
    data = _ready(SlideDataModule(stores, tmp_path / "labels.csv", **how))  # type: ignore[arg-type]
    assert data.classes == ("0", "1")
    with pytest.raises(CohortError, match="event 'scanned' is neither"):
        _ready(SlideDataModule(stores, tmp_path / "labels.csv", target="survival", **how))  # type: ignore[arg-type]


def test_classes_that_yaml_took_for_something_else(cohort: Path, stores: Path) -> None:
    assert _ready(_data(cohort, stores, classes=[1, 0])).classes == ("1", "0")
    with pytest.raises(CohortError, match=r"YAML reads no, yes, .* put the names in quotes"):
        _data(cohort, stores, classes=[False, True])


def test_validation_is_carved_from_training(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text((cohort / "labels.csv").read_text().replace(",val,", ",train,"))
    data = _ready(
        SlideDataModule(stores, table, columns={"label": "lesion"}, val_fraction=0.25, num_workers=0)
    )
    names = {split: {case.id for case in data.cases[split]} for split in ("train", "val", "test")}
    assert len(names["val"]) == pytest.approx(0.25 * len(names["train"] | names["val"]), abs=1)
    assert not names["train"] & names["val"]
    whole = _ready(_data(cohort, stores))
    assert names["test"] == {case.id for case in whole.cases["test"]}
    data.write_splits(tmp_path / "splits.csv")
    again = _ready(_data(cohort, stores, splits=tmp_path / "splits.csv"))
    assert {case.id for case in again.cases["val"]} == names["val"]


def test_selecting_on_test_is_possible_and_loud(
    cohort: Path, stores: Path, caplog: pytest.LogCaptureFixture
) -> None:
    honest = _ready(_data(cohort, stores))
    data = _ready(_data(cohort, stores, select_on_test=True))
    unseen = {case.id for split in ("val", "test") for case in honest.cases[split]}
    assert {case.id for case in data.cases["val"]} == {case.id for case in data.cases["test"]} == unseen
    assert {case.id for case in data.cases["train"]} == {case.id for case in honest.cases["train"]}
    assert "do not report it as a test" in caplog.text


def test_streams_are_decoded_on_their_way(cohort: Path, stores: Path) -> None:
    batches = []
    for on_device in (False, True):
        data = _ready(_data(cohort, stores, decode_on_device=on_device, num_workers=1))
        loader = data.train_dataloader()
        batches.append([data.transfer_batch_to_device(bag, torch.device("cpu"), 0) for bag in loader])
    for one, other in zip(*batches, strict=True):
        assert one.cases == other.cases
        assert one.patches.shape == other.patches.shape
        assert (one.patches.int() - other.patches.int()).abs().max() <= 2


def test_balanced_draws(cohort: Path, stores: Path) -> None:
    data = _ready(_data(cohort, stores, balanced=True, batch_size=1))
    labels = [int(bag.label) for bag in data.train_dataloader()]
    assert abs(labels.count(0) - labels.count(1)) <= 1


def test_empty_bag_is_named(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", {0.5: (np.zeros((0, 8, 8, 3), np.uint8), None)})
    with pytest.raises(BagError, match="case s would be an empty bag"):
        _ready(SlideDataModule(tmp_path, num_workers=0), "predict")


def test_synthetic_data_draw_and_cache_themselves(tmp_path: Path) -> None:
    data = SyntheticDataModule(
        tmp_path, num_slides=24, side=512, patch_size=64, patches_per_bag=8, num_workers=0
    )
    _ready(data)
    assert data.classes == ("0", "1")
    assert len(list((tmp_path / "cache").glob("*.zarr"))) == 24
    assert next(iter(data.train_dataloader())).patches.shape == (4, 8, 3, 64, 64)


def _write_features(folder: Path, names: list[str], width: int = 5) -> None:
    torch.manual_seed(0)
    folder.mkdir()
    for index, name in enumerate(names):
        torch.save(torch.randn(3 + index, width), folder / f"{name}.pt")


def _feature_data(folder: Path, rows: list[str], **how: object) -> FeatureDataModule:
    (folder / "labels.csv").write_text("\n".join(["case,slide,label,split", *rows]))
    return FeatureDataModule(folder / "features", folder / "labels.csv", num_workers=0, **how)  # type: ignore[arg-type]


def test_feature_bags(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c", "d"])
    data = _feature_data(tmp_path, ["p,a,0,train", "p,b,0,train", "q,c,1,val", "r,d,1,test"])
    data.setup("fit")
    (train,) = list(data.train_dataloader())
    assert train.patches.shape == (1, 7, 5)
    assert train.mask.all()
    (test,) = list(data.test_dataloader())
    assert test.cases == ("r",)
    saved = torch.load(tmp_path / "features/d.pt", weights_only=True)
    assert torch.equal(test.patches[0], saved)


def test_feature_batches_are_padded_and_masked(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c", "d"])
    rows = ["p,a,0,train", "p,b,0,train", "q,c,1,train", "r,d,1,val"]
    data = _feature_data(tmp_path, rows, batch_size=2)
    data.setup("fit")
    (train,) = list(data.train_dataloader())
    sizes = {"p": 7, "q": 5}
    assert train.patches.shape == (2, 7, 5)
    assert train.mask.sum(1).tolist() == [sizes[case] for case in train.cases]
    assert not train.patches[~train.mask].any()
    few = _feature_data(tmp_path, rows, batch_size=2, max_patches=4)
    few.setup("fit")
    (train,) = list(few.train_dataloader())
    assert train.patches.shape == (2, 4, 5)
    assert train.mask.all()
    assert [bag.patches.shape for bag in few.val_dataloader()] == [(1, 6, 5)]  # evaluation sees all


def test_slides_of_a_case_follow_each_other_in_evaluation(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c"])
    data = _feature_data(tmp_path, ["p,b,0,test", "p,a,0,test", "q,c,1,test"])
    data.setup("predict")
    parts = [(bag.cases, bag.patches.shape[1], bag.last) for bag in data.predict_dataloader()]
    assert parts == [(("p",), 4, False), (("p",), 3, True), (("q",), 5, True)]


def test_feature_workers_change_nothing(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c", "d"])
    batches = []
    for workers in (0, 2):
        data = _feature_data(
            tmp_path, ["p,a,0,train", "p,b,0,train", "q,c,1,train", "r,d,1,val"], max_patches=3
        )
        data.num_workers = workers
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert one.cases == other.cases
        assert torch.equal(one.patches, other.patches)


def test_the_slides_resolutions_place_stamps_tiles(cohort: Path, tmp_path: Path) -> None:
    """The µm/px are those of the slides' own headers, a CSV's where it has one, or what is assumed."""
    corners = np.array([[0, 0], [500, 1000], [1500, 500]])
    (tmp_path / "features").mkdir()
    names = ["slide-000", "slide-001"]
    with Slide(cohort / "slides/slide-000.tiff") as slide:
        own = slide.resolution().mpp
    for name, mpp in zip(names, (own, 0.3), strict=True):
        with h5py.File(tmp_path / f"features/{name}.h5", "w") as file:
            file["feats"], file["coords"] = np.ones((3, 4), np.float16), (corners * mpp).astype(np.float32)
            file.attrs.update(unit="um", tile_size_um=256.0, tile_size_px=224)
    table = tmp_path / "slides.csv"
    paths = [cohort / f"slides/{name}.tiff" for name in names]
    table.write_text(f"slide,mpp\n{paths[0]},\n{paths[1]},0.3\n")
    data = FeatureDataModule(tmp_path / "features", slides=table, num_workers=0)
    data.setup("predict")
    for bag in data.predict_dataloader():
        assert bag.coords[0].tolist() == corners.tolist()
    data = FeatureDataModule(tmp_path / "features", assume_mpp=0.3, num_workers=0)
    data.setup("predict")
    first, second = [bag.coords[0].tolist() for bag in data.predict_dataloader()]
    assert second == corners.tolist() != first
    data = FeatureDataModule(tmp_path / "features", num_workers=0)
    data.setup("predict")
    for bag in data.predict_dataloader():
        assert bag.coords.tolist() == [[[-1, -1]] * 3]


def test_features_that_differ_in_width_are_named(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b"])
    torch.save(torch.randn(4, 7), tmp_path / "features/b.pt")
    data = _feature_data(tmp_path, ["a,a,0,train", "b,b,1,val"])
    with pytest.raises(BagError, match=r"b\.pt has 7 features a patch, .*a\.pt 5"):
        data.setup("fit")


def test_bad_features_are_refused(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b"])
    with pytest.raises(ValueError, match="max_patches is 0; it counts patches"):
        FeatureDataModule(tmp_path / "features", max_patches=0)
    with pytest.raises(FeatureError, match=r"absent holds no \.h5 or \.pt file"):
        FeatureDataModule(tmp_path / "absent", num_workers=0).setup("predict")
    torch.save(torch.randn(0, 5), tmp_path / "features/b.pt")
    with pytest.raises(FeatureError, match=r"b\.pt holds no patch"):
        FeatureDataModule(tmp_path / "features", num_workers=0).setup("predict")


@pytest.mark.parametrize("shape", [(0, 5), (1, 0, 5)])
def test_slides_without_a_patch_are_missing_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shape: tuple[int, ...]
) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c", "d", "e"])
    torch.save(torch.empty(shape), tmp_path / "features/b.pt")
    torch.save(torch.empty(shape), tmp_path / "features/z.pt")  # of no case
    rows = ["p,a,0,train", "q,b,1,train", "q,c,1,train", "r,d,1,val", "s,e,0,test"]
    with pytest.raises(FeatureError, match=r"b\.pt holds no patch: .*\(data\.skip_missing: true\)"):
        _feature_data(tmp_path, rows).setup("fit")
    data = _feature_data(tmp_path, rows, skip_missing=True)
    data.setup("fit")
    assert [case.id for case in data.cases["train"]] == ["p"]
    assert [case.id for case in data.cases["val"]] == ["r"]
    said = [
        record.message
        for record in caplog.records
        if "holds no patch: its case is left out" in record.message
    ]
    assert [message.split("/")[-1][:4] for message in said] == ["b.pt", "z.pt"]
    assert sum(len(list(loader)) for loader in (data.train_dataloader(), data.val_dataloader())) == 2
    all_slides = FeatureDataModule(tmp_path / "features", num_workers=0, skip_missing=True)
    all_slides.setup("predict")
    assert [case.id for case in all_slides.cases["all"]] == ["a", "c", "d", "e"]


def _multi_label_table(folder: Path, cohort: Path) -> Path:
    """The synthetic cohort with the columns lesion and severe, which is unknown for every fourth case."""
    table = pd.read_csv(cohort / "labels.csv")
    table["severe"] = (table["grade"] == 2).astype("Int64").where(table.index % 4 != 0)
    table.to_csv(folder / "multi.csv", index=False)
    return folder / "multi.csv"


def test_several_labels_a_case(cohort: Path, stores: Path, tmp_path: Path) -> None:
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
        _ready(
            SlideDataModule(stores, table, num_workers=0, fold=fold, folds=3, columns={"split": None}, **how)
        )  # type: ignore[arg-type]
        for fold in range(3)
    ]
    severe = [sum(case.labels[0] == 1 for case in one.cases["test"]) for one in folds]
    assert max(severe) - min(severe) <= 1


def test_several_labels_need_their_columns(cohort: Path, stores: Path) -> None:
    for classes in (None, [], ["lesion", "lesion"]):
        with pytest.raises(ValueError, match=r"for target multi_label; name the columns"):
            _data(cohort, stores, target="multi_label", classes=classes)
    with pytest.raises(ValueError, match="balanced draws classes equally often"):
        _data(cohort, stores, target="multi_label", classes=["lesion"], balanced=True)
    with pytest.raises(CohortError, match=r"no column 'lesions' \(is it 'lesion'\?\)"):
        _ready(_data(cohort, stores, target="multi_label", classes=["lesions"]))
    with pytest.raises(CohortError, match="grade '2' is neither 1"):
        _ready(_data(cohort, stores, target="multi_label", classes=["lesion", "grade"]))
