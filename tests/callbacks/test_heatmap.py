import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from e2e_abmilx.callbacks.heatmap import AttentionHeatmap
from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.heatmaps import HeatmapError
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.tasks import BagTask, ClassificationTask, Prediction, SurvivalTask


class _Mean(nn.Module):
    num_features = 3

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3))


def _trainer(folder: Path) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[AttentionHeatmap()],
    )  # fmt: skip


def _attention_in(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Corners and mean attention of the patches of a GeoJSON, in its order."""
    features = json.loads((folder / "patches.geojson").read_text())["features"]
    corners = np.array([feature["geometry"]["coordinates"][0][0] for feature in features])
    return corners, np.array([next(iter(one["properties"]["measurements"].values())) for one in features])


@pytest.mark.parametrize("task_class", [ClassificationTask, SurvivalTask])
def test_each_slide_of_a_case_has_its_own_attention(
    cohort: Path, stores: Path, tmp_path: Path, task_class: type[BagTask]
) -> None:
    torch.manual_seed(0)
    task = task_class(_Mean(), ABMIL, 2)
    slides = ["slide-004", "slide-001", "slide-002"]
    table = pd.read_csv(cohort / "labels.csv").set_index("slide").loc[slides].reset_index()
    table["case"] = ["two", "two", "one"]
    table[["lesion", "time", "event", "split"]] = [[0, 50.0, 1, "test"]] * 3
    table.to_csv(tmp_path / "labels.csv", index=False)
    data = SlideDataModule(
        stores, tmp_path / "labels.csv", columns={"label": "lesion"}, classes=["0", "1"], chunk_size=7,
        eval_scales="all", workers=0,
    )  # fmt: skip
    predictions = _trainer(tmp_path).predict(task, data)
    assert predictions is not None
    assert {path.name for path in (tmp_path / "heatmaps").iterdir()} == set(slides)
    for prediction in predictions:
        if isinstance(prediction, Prediction):
            own = [
                slide
                for slide, case in zip(table["slide"], table["case"], strict=True)
                if case == prediction.case
            ]
            found = [_attention_in(tmp_path / "heatmaps" / slide) for slide in own]
            relative = prediction.output.attention[0, 0].numpy() * len(prediction.coords)
            np.testing.assert_allclose(np.concatenate([weights for _, weights in found]), relative, rtol=1e-5)
            for slide, (corners, _) in zip(own, found, strict=True):
                store = PatchStore(stores / f"{slide}.zarr")
                assert np.array_equal(corners, np.concatenate([store.coords(0), store.coords(1)]))


def test_a_slide_that_cannot_be_drawn_is_refused_before_any_is_predicted(tmp_path: Path) -> None:
    write_store(tmp_path / "cache" / "own.zarr", {0.5: (np.zeros((2, 8, 8, 3), np.uint8), None)})
    task = ClassificationTask(_Mean(), ABMIL, 2)
    with pytest.raises(HeatmapError, match=r"own\.zarr does not know its slide_size"):
        _trainer(tmp_path).predict(task, SlideDataModule(tmp_path / "cache", workers=0))
    assert not (tmp_path / "heatmaps").exists()


def test_features_without_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    torch.save(torch.zeros(4, 3), tmp_path / "features" / "slide.pt")
    task = ClassificationTask(Precomputed(3), ABMIL, 2)
    with pytest.raises(HeatmapError, match="FeatureBags does not say; predict with a SlideDataModule"):
        _trainer(tmp_path).predict(task, FeatureDataModule(tmp_path / "features", workers=0))
