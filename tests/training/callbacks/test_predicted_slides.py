"""Heatmaps and features need bags that record where their patches lie."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from e2e_abmilx.data.loaders import Padded
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore
from e2e_abmilx.training.callbacks.predicted_slides import patches_by_slide, predicted_slides, slides_of


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


def test_patches_of_a_slide_are_counted_over_its_parts_and_scales(stores: Path) -> None:
    data = SlideDataModule(stores, num_workers=0, eval_chunk_size=7, eval_scales="all")
    data.setup("predict")
    sizes = patches_by_slide(slides_of(data.predict_dataloader()))
    assert len(sizes) == len(list(stores.glob("*.zarr")))
    for of_case in sizes.values():
        for slide, size in of_case.items():
            store = PatchStore(stores / f"{slide}.zarr")
            assert size == store.num_patches(0) + store.num_patches(1)
