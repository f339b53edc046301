"""A folder of heatmaps per slide, with the attention to its patches or their contributions."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from kept_patches import predict_patches
from lightning.pytorch import Trainer
from torch import Tensor, nn

from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMIL, ABMILX, DSMIL, ContributionError, leave_one_out, log_odds
from e2e_abmilx.heatmaps import HeatmapError, Kind
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, MultiLabelTask, RegressionTask, SurvivalTask
from e2e_abmilx.training.callbacks.heatmap import AttentionHeatmap

_CASES = {"slide-004": "two", "slide-001": "two", "slide-002": "one"}


class _Mean(nn.Module):
    num_features = 3

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3))


def _trainer(folder: Path, kind: Kind = "attention") -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[AttentionHeatmap(kind)],
    )  # fmt: skip


def _two_cases(cohort: Path, stores: Path, folder: Path, *, outputs: int = 2) -> SlideDataModule:
    """Return data of case "two", which has two slides, and case "one", which has one."""
    table = pd.read_csv(cohort / "labels.csv").set_index("slide").loc[list(_CASES)].reset_index()
    table["case"] = list(_CASES.values())
    table[["lesion", "time", "event", "split"]] = [["normal", 50.0, 1, "test"]] * 3
    table.to_csv(folder / "labels.csv", index=False)
    return SlideDataModule(
        stores, folder / "labels.csv", columns={"label": "lesion"}, eval_chunk_size=7,
        classes=["normal", "tumour", "other"][:outputs],
        eval_scales="all", num_workers=0,
    )  # fmt: skip


def _attention_in(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return corners and mean attention of the patches in a GeoJSON, in its order."""
    features = json.loads((folder / "patches.geojson").read_text())["features"]
    corners = np.array([feature["geometry"]["coordinates"][0][0] for feature in features])
    return corners, np.array([next(iter(one["properties"]["measurements"].values())) for one in features])


@pytest.mark.parametrize("task_class", [ClassificationTask, SurvivalTask])
def test_each_slide_of_a_case_has_its_own_attention(
    cohort: Path, stores: Path, tmp_path: Path, task_class: type[BagTask]
) -> None:
    torch.manual_seed(0)
    task = task_class(_Mean(), ABMIL, 2)
    predictions = predict_patches(_trainer(tmp_path), task, _two_cases(cohort, stores, tmp_path))
    assert {path.name for path in (tmp_path / "heatmaps").iterdir()} == set(_CASES)
    for prediction, patches in predictions:
        own = [slide for slide, case in _CASES.items() if case == prediction.case]
        found = [_attention_in(tmp_path / "heatmaps" / slide) for slide in own]
        relative = patches.output.attention[0, 0].numpy() * len(patches.coords)
        np.testing.assert_allclose(np.concatenate([weights for _, weights in found]), relative, rtol=1e-5)
        for slide, (corners, _) in zip(own, found, strict=True):
            store = PatchStore(stores / f"{slide}.zarr")
            assert np.array_equal(corners, np.concatenate([store.coords(0), store.coords(1)]))


def _contributions_in(folder: Path, score: str) -> np.ndarray:
    features = json.loads((folder / "patches.geojson").read_text())["features"]
    name = f"contribution to the {score} (with the patch minus without it)"
    return np.array([feature["properties"]["measurements"][name] for feature in features])


@pytest.mark.parametrize(
    ("task_class", "outputs", "score"),
    [
        (ClassificationTask, 2, "log-odds of tumour"),
        (SurvivalTask, 3, "risk"),
        (CoxTask, 1, "risk"),
        (RegressionTask, 1, "predicted_value"),
    ],
)
@torch.no_grad()
def test_each_slide_of_a_case_has_its_own_contributions(
    cohort: Path, stores: Path, tmp_path: Path, task_class: type[BagTask], outputs: int, score: str
) -> None:
    torch.manual_seed(0)
    task = task_class(_Mean(), lambda *sizes: ABMILX(*sizes, hidden_features=16, num_heads=2), outputs)
    data = _two_cases(cohort, stores, tmp_path, outputs=outputs)
    head = copy.deepcopy(task.head).double().eval()
    for prediction, patches in predict_patches(_trainer(tmp_path, "contribution"), task, data):
        attention = patches.output.attention[0].double()
        values = head.values(patches.features[None].double())[0]

        def score_of(weights: Tensor, values: Tensor = values) -> float:
            pooled = torch.einsum("hn,nhd->hd", weights / weights.sum(dim=1, keepdim=True), values)
            logits = head.classify(pooled[None])
            if task_class is ClassificationTask:
                return float(logits[0, 1] - logits[0, 0])
            return float(task.bag_scores(logits)[0, -1])

        others = 1 - torch.eye(len(values), dtype=torch.float64)
        expected = [score_of(attention) - score_of(attention * kept) for kept in others]
        own = [slide for slide, case in _CASES.items() if case == prediction.case]
        found = np.concatenate([_contributions_in(tmp_path / "heatmaps" / slide, score) for slide in own])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)
        assert np.ptp(found) > 1e-6
    assert (tmp_path / "heatmaps" / "slide-001" / "contribution.ome.zarr").is_dir()


@pytest.mark.parametrize(
    ("task_class", "score"),
    [(ClassificationTask, log_odds), (MultiLabelTask, lambda logits, output: logits[:, output])],
)
def test_the_most_probable_of_several_classes_is_explained(
    stores: Path, tmp_path: Path, task_class: type[BagTask], score: Callable[..., Tensor]
) -> None:
    torch.manual_seed(0)
    (tmp_path / "labels.csv").write_text("slide,label,split\nslide-002,c,test\n")
    task = task_class(_Mean(), ABMIL, 3)
    data = SlideDataModule(stores, tmp_path / "labels.csv", classes=["a", "b", "c"], num_workers=0)
    ((_, patches),) = predict_patches(_trainer(tmp_path, "contribution"), task, data)
    _, attention, _ = patches.output
    most = int(patches.output.logits.argmax())
    found = _contributions_in(tmp_path / "heatmaps" / "slide-002", f"log-odds of {'abc'[most]}")
    expected = leave_one_out(task.head, patches.features, attention[0], partial(score, output=most))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_head_without_contributions_is_refused_before_any_slide_is_predicted(stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(_Mean(), DSMIL, 2)
    with pytest.raises(ContributionError, match="DSMIL does not classify a mean of its patches"):
        _trainer(tmp_path, "contribution").predict(task, SlideDataModule(stores, num_workers=0))


def test_a_slide_that_cannot_be_drawn_is_refused_before_any_is_predicted(tmp_path: Path) -> None:
    write_store(tmp_path / "cache" / "own.zarr", {0.5: (np.zeros((2, 8, 8, 3), np.uint8), None)})
    task = ClassificationTask(_Mean(), ABMIL, 2)
    with pytest.raises(HeatmapError, match=r"own\.zarr has no slide_size"):
        _trainer(tmp_path).predict(task, SlideDataModule(tmp_path / "cache", num_workers=0))
    assert not (tmp_path / "heatmaps").exists()


def test_features_without_coordinates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    torch.save(torch.zeros(4, 3), tmp_path / "features" / "slide.pt")
    task = ClassificationTask(Precomputed(3), ABMIL, 2)
    with pytest.raises(InputError, match=r"FeatureBags does not record where patches lie.*use a SlideDataModule"):
        _trainer(tmp_path).predict(task, FeatureDataModule(tmp_path / "features", num_workers=0))
