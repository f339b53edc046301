from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from e2e_abmilx.data.bag import BagError
from e2e_abmilx.data.features import FeatureError
from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.slides import Slide


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
    assert [bag.patches.shape for bag in few.val_dataloader()] == [(1, 6, 5)]  # evaluation uses all features


def test_slides_of_a_case_are_consecutive_in_evaluation(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c"])
    data = _feature_data(tmp_path, ["p,b,0,test", "p,a,0,test", "q,c,1,test"])
    data.setup("predict")
    parts = [(bag.cases, bag.patches.shape[1], bag.last) for bag in data.predict_dataloader()]
    assert parts == [(("p",), 4, False), (("p",), 3, True), (("q",), 5, True)]


def test_workers_do_not_change_bags(tmp_path: Path) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c", "d"])
    batches = []
    for workers in (0, 2):
        data = _feature_data(tmp_path, ["p,a,0,train", "p,b,0,train", "q,c,1,train", "r,d,1,val"], max_patches=3)
        data.num_workers = workers
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert one.cases == other.cases
        assert torch.equal(one.patches, other.patches)


def test_resolutions_of_slides_place_the_tiles_of_stamp(cohort: Path, tmp_path: Path) -> None:
    """The µm/px come from the slides' headers, from a CSV that states them, or from an assumption."""
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
    with pytest.raises(BagError, match=r"b\.pt has 7 features per patch, .*a\.pt has 5"):
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
def test_slides_without_patches_count_as_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shape: tuple[int, ...]
) -> None:
    _write_features(tmp_path / "features", ["a", "b", "c", "d", "e"])
    torch.save(torch.empty(shape), tmp_path / "features/b.pt")
    torch.save(torch.empty(shape), tmp_path / "features/z.pt")  # belongs to no case
    rows = ["p,a,0,train", "q,b,1,train", "q,c,1,train", "r,d,1,val", "s,e,0,test"]
    with pytest.raises(FeatureError, match=r"b\.pt holds no patch: .*\(data\.skip_missing: true\)"):
        _feature_data(tmp_path, rows).setup("fit")
    data = _feature_data(tmp_path, rows, skip_missing=True)
    data.setup("fit")
    assert [case.id for case in data.cases["train"]] == ["p"]
    assert [case.id for case in data.cases["val"]] == ["r"]
    messages = [record.message for record in caplog.records if "holds no patch: its case is left out" in record.message]
    assert [message.split("/")[-1][:4] for message in messages] == ["b.pt", "z.pt"]
    assert sum(len(list(loader)) for loader in (data.train_dataloader(), data.val_dataloader())) == 2
    all_slides = FeatureDataModule(tmp_path / "features", num_workers=0, skip_missing=True)
    all_slides.setup("predict")
    assert [case.id for case in all_slides.cases["all"]] == ["a", "c", "d", "e"]
