import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from e2e_abmilx.heads import ABMIL, ABMILX, DSMIL, ContributionError, leave_one_out, log_odds
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask, ClassificationTask
from e2e_abmilx.tasks.prediction import PredictedPatches
from e2e_abmilx.tasks.slide_heatmaps import check_kind, write_case_heatmaps


class _Mean(nn.Module):
    num_features = 3

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3))


class _OwnHead(nn.Module):
    """A head from outside this package, of which nothing is known."""


@pytest.mark.parametrize(
    ("head", "kind"), [(ABMIL(3, 2), "contribution"), (DSMIL(3, 2), "attention"), (_OwnHead(), "contribution")]
)
def test_heads_that_can_be_drawn(head: object, kind: str) -> None:
    check_kind(head, kind)  # type: ignore[arg-type]


def test_a_head_without_contributions_is_refused() -> None:
    with pytest.raises(ContributionError, match="DSMIL does not classify a mean of its patches"):
        check_kind(DSMIL(3, 2), "contribution")


def _predicted(stores: Path, slides: list[str], outputs: int = 2, kind: type[BagTask] = ClassificationTask) -> BagTask:
    """Return a task as it is after the prediction of a case with these slides, of random features."""
    torch.manual_seed(0)
    task = kind(_Mean(), ABMIL, outputs).eval()
    coords = [PatchStore(stores / f"{slide}.zarr").coords(0) for slide in slides]
    features = torch.randn(sum(map(len, coords)), 3)
    assert isinstance(task.head, BagHead)
    with torch.no_grad():
        output = task.head.attend(features[None])
    scale = torch.zeros(len(features), dtype=torch.int64)
    task.predicted_patches = PredictedPatches(
        HeadOutput(*output), features, torch.from_numpy(np.concatenate(coords)), scale
    )
    return task


def _sizes(stores: Path, slides: list[str]) -> dict[str, int]:
    return {slide: len(PatchStore(stores / f"{slide}.zarr").coords(0)) for slide in slides}


def _measurements(folder: Path) -> list[dict[str, float]]:
    features = json.loads((folder / "patches.geojson").read_text())["features"]
    return [feature["properties"]["measurements"] for feature in features]


def test_each_slide_gets_its_own_part_of_the_attention(stores: Path, tmp_path: Path) -> None:
    slides = ["slide-003", "slide-001"]
    task = _predicted(stores, slides)
    write_case_heatmaps(
        task, {"probability_0": 0.9, "probability_1": 0.1}, _sizes(stores, slides), stores, tmp_path, "attention"
    )
    assert {path.name for path in tmp_path.iterdir()} == set(slides)
    assert task.predicted_patches is not None
    attention = task.predicted_patches.output.attention[0, 0].numpy()
    relative = attention * len(attention)  # to the mean over the case, not over the slide
    found = [next(iter(one.values())) for slide in slides for one in _measurements(tmp_path / slide)]
    np.testing.assert_allclose(found, relative, rtol=1e-5)


@torch.no_grad()
def test_each_slide_gets_its_own_part_of_the_contributions(stores: Path, tmp_path: Path) -> None:
    slides = ["slide-003", "slide-001"]
    task = _predicted(stores, slides)
    write_case_heatmaps(task, {"probability_1": 0.1}, _sizes(stores, slides), stores, tmp_path, "contribution")
    patches = task.predicted_patches
    assert patches is not None
    expected = leave_one_out(
        task.head, patches.features, patches.output.attention[0], lambda logits: log_odds(logits, output=1)
    )
    name = "contribution to the log-odds of 1 (with the patch minus without it)"
    found = [one[name] for slide in slides for one in _measurements(tmp_path / slide)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_several_attention_heads(stores: Path, tmp_path: Path) -> None:
    task = _predicted(stores, ["slide-002"])
    head = ABMILX(3, 2, hidden_features=16, num_heads=2).eval()
    patches = task.predicted_patches
    assert patches is not None
    task.head = head
    with torch.no_grad():
        task.predicted_patches = patches._replace(output=head.attend(patches.features[None]))
        attention = task.predicted_patches.output.attention[0].numpy()
    write_case_heatmaps(task, {"risk": 0.5}, _sizes(stores, ["slide-002"]), stores, tmp_path, "attention")
    found = [next(iter(one.values())) for one in _measurements(tmp_path / "slide-002")]
    np.testing.assert_allclose(found, attention.mean(axis=0) * attention.shape[1], rtol=1e-5)
