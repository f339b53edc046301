"""Heatmaps and features need bags that record where their patches lie."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from e2e_abmilx.data.loaders import Padded
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.training.callbacks.predicted_slides import predicted_slides


def _trainer(dataset: object) -> Any:
    return SimpleNamespace(predict_dataloaders=DataLoader(dataset))  # type: ignore[arg-type]


def test_slides_are_found_also_if_they_are_padded_for_several_processes(stores: Path) -> None:
    data = SlideDataModule(stores, num_workers=0)
    data.setup("predict")
    loader: Any = data.predict_dataloader()
    bags = predicted_slides(_trainer(loader.dataset))
    assert {part.slide for part in bags.parts} == {path.stem for path in stores.glob("*.zarr")}
    assert predicted_slides(_trainer(Padded(bags))) is bags


def test_other_bags_are_refused() -> None:
    with pytest.raises(InputError, match=r"list does not record where patches lie.*use a SlideDataModule"):
        predicted_slides(_trainer([1, 2]))
