from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from slide_runs import message_of, write_slide_config

from e2e_abmilx.cohort import CohortError
from e2e_abmilx.data.bag import BagError
from e2e_abmilx.data.draws import RegionalDraw, UniformDraw
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.main import main
from e2e_abmilx.store import write_store


def _ready(data: SlideDataModule, stage: str = "fit") -> SlideDataModule:
    data.prepare_data()
    data.setup(stage)
    return data


def _data(cohort: Path, stores: Path, **how: object) -> SlideDataModule:
    settings = {"columns": {"label": "lesion"}, "patches_per_bag": 8, "batch_size": 2, "num_workers": 0, **how}
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


def test_workers_do_not_change_bags(cohort: Path, stores: Path) -> None:
    batches = []
    for workers in (0, 2):
        loader = _ready(_data(cohort, stores, num_workers=workers)).train_dataloader()
        loader.sampler.set_epoch(3)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert one.cases == other.cases
        assert torch.equal(one.patches, other.patches)


def test_a_draw_decides_the_patches_of_training_bags(cohort: Path, stores: Path) -> None:
    data, uniform = _ready(_data(cohort, stores, draw=RegionalDraw(2))), _ready(_data(cohort, stores))
    assert isinstance(uniform.draw, UniformDraw)
    for one, other in zip(data.train_dataloader(), uniform.train_dataloader(), strict=True):
        assert one.cases == other.cases
        assert one.mask.sum() == other.mask.sum()
        assert not torch.equal(one.coords, other.coords)
    for one, other in zip(data.val_dataloader(), uniform.val_dataloader(), strict=True):
        assert torch.equal(one.coords, other.coords)


def test_a_fit_by_region(cohort: Path, stores: Path, tmp_path: Path) -> None:
    config = write_slide_config(tmp_path, cohort, stores)
    content = yaml.safe_load(config.read_text())
    content["data"]["init_args"]["draw"] = {"class_path": "RegionalDraw", "init_args": {"regions": 2}}
    config.write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(config), "--trainer.max_epochs=1", "--data.num_workers=1"])
    assert "e2e_abmilx.data.draws.RegionalDraw" in (tmp_path / "run/fit.yaml").read_text()
    assert (tmp_path / "run/predictions.csv").exists()
    assert "regions is 0" in message_of(["fit", "--config", str(config), "--data.draw.regions=0"])


def test_without_labels_every_store_can_be_predicted(stores: Path) -> None:
    data = _ready(SlideDataModule(stores, num_workers=0), "predict")
    assert {name for bag in data.predict_dataloader() for name in bag.cases} == {f"slide-{k:03d}" for k in range(24)}


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


def test_streams_are_decoded_in_the_transfer(cohort: Path, stores: Path) -> None:
    batches = []
    for on_device in (False, True):
        data = _ready(_data(cohort, stores, decode_on_device=on_device, num_workers=1))
        loader = data.train_dataloader()
        batches.append([data.transfer_batch_to_device(bag, torch.device("cpu"), 0) for bag in loader])
    for one, other in zip(*batches, strict=True):
        assert one.cases == other.cases
        assert one.patches.shape == other.patches.shape
        assert (one.patches.int() - other.patches.int()).abs().max() <= 2


def test_empty_bags_are_named(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", {0.5: (np.zeros((0, 8, 8, 3), np.uint8), None)})
    with pytest.raises(BagError, match="case s would be an empty bag"):
        _ready(SlideDataModule(tmp_path, num_workers=0), "predict")
