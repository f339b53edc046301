"""Maps of the case that a task predicted last, and the writer that never ends a test."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from local_bucket import FaultProxy
from torch import Tensor, nn

from e2e_abmilx.cache.push import push
from e2e_abmilx.heads import ABMIL, DSMIL, leave_one_out, log_odds
from e2e_abmilx.heads.base import HeadOutput
from e2e_abmilx.heatmaps import HeatmapError, MapError, read_case_map
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import ObjectUrl, store_path
from e2e_abmilx.tasks import ClassificationTask, SurvivalTask
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.case_maps import MapWriter, case_map_of
from e2e_abmilx.tasks.prediction import PredictedPatches

SLIDES = ["slide-003", "slide-001"]


class _Mean(nn.Module):
    num_features = 3

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3))


def _predicted(stores: Path, head: object = ABMIL, kind: type[BagTask] = ClassificationTask) -> BagTask:
    """Return a task as it is after the prediction of a case with two slides, of random features."""
    torch.manual_seed(0)
    task = kind(_Mean(), head, 2).eval()
    coords = torch.cat([torch.from_numpy(PatchStore(stores / f"{slide}.zarr").coords(0)) for slide in SLIDES])
    features = torch.randn(len(coords), 3)
    with torch.no_grad():
        output = HeadOutput(*task.head.attend(features[None]))
    task.predicted_patches = PredictedPatches(output, features, coords, torch.zeros(len(coords), dtype=torch.int64))
    return task


def _sizes(stores: Path) -> dict[str, int]:
    return {slide: PatchStore(stores / f"{slide}.zarr").num_patches(0) for slide in SLIDES}


@torch.no_grad()
def test_the_map_of_a_case(stores: Path) -> None:
    task = _predicted(stores)
    patches = task.predicted_patches
    assert patches is not None
    found = case_map_of(task, "case", _sizes(stores), stores)
    assert [one.slide for one in found.slides] == SLIDES
    attention = patches.output.attention[0].numpy()
    np.testing.assert_array_equal(
        np.concatenate([one.heads for one in found.slides], axis=1), attention * attention.shape[1]
    )
    rank = np.concatenate([one.rank for one in found.slides])  # over the case, not over the slide
    assert sorted(rank) == list(range(1, attention.shape[1] + 1))
    assert (np.diff(attention.mean(axis=0)[np.argsort(rank)]) <= 0).all()
    expected = leave_one_out(task.head, patches.features, patches.output.attention[0], lambda x: log_odds(x, 1))
    own = [one.contribution for one in found.slides if one.contribution is not None]
    np.testing.assert_allclose(np.concatenate(own), expected, rtol=1e-6)


@torch.no_grad()
def test_stores_in_random_order(stores: Path, bucket: FaultProxy) -> None:
    """The patches of pushed stores are predicted row by row, and their maps are in the order of the store."""
    to = ObjectUrl("s3://cohorts/maps")
    assert push(stores, to) == []
    task = _predicted(stores)
    local, remote = (case_map_of(task, "case", _sizes(stores), cache) for cache in (stores, to))
    for one, other in zip(local.slides, remote.slides, strict=True):
        assert not np.array_equal(one.coords, other.coords)
        first, second = (np.lexsort(of.coords.T) for of in (one, other))
        np.testing.assert_array_equal(one.coords[first], other.coords[second])
        np.testing.assert_array_equal(one.heads[:, first], other.heads[:, second])
        np.testing.assert_array_equal(one.rank[first], other.rank[second])
        np.testing.assert_array_equal(one.contribution[first], other.contribution[second])
        np.testing.assert_array_equal(other.coords, PatchStore(store_path(to, other.slide)).coords())


def test_scores_of_contributions(stores: Path) -> None:
    assert case_map_of(_predicted(stores), "case", _sizes(stores), stores).score == "log-odds of 1"
    assert case_map_of(_predicted(stores, kind=SurvivalTask), "case", _sizes(stores), stores).score == "risk"
    found = case_map_of(_predicted(stores, DSMIL), "case", _sizes(stores), stores)
    assert found.score is None
    assert all(one.contribution is None for one in found.slides)


def test_attention_to_other_patches_is_refused(stores: Path) -> None:
    task = _predicted(stores)
    sizes = dict(reversed(_sizes(stores).items()))
    with pytest.raises(HeatmapError, match="of other patches than those"):
        case_map_of(task, "case", sizes, stores)


def test_a_map_that_fails_ends_nothing(stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = dict(reversed(_sizes(stores).items()))
    writer = MapWriter(tmp_path, stores, {"good": _sizes(stores), "bad": wrong, "late": _sizes(stores)})
    assert writer.reason is None
    task = _predicted(stores)
    with caplog.at_level(logging.WARNING, "e2e_abmilx"):
        for case in ("good", "unknown", "bad", "late"):
            writer.write(task, case, {})
    assert {text[:40] for text in caplog.messages} == {"the attention of case 'bad' and of later"}
    assert writer.written == ["good"]
    assert not (tmp_path / "attention").exists()
    writer.publish(writer.written)
    assert read_case_map(tmp_path, "good").case == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["attention"]
    MapWriter(tmp_path, stores, {}).publish([])  # another test, without maps
    with pytest.raises(MapError, match="no attention of case"):
        read_case_map(tmp_path, "good")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_named_at_the_start(stores: Path, tmp_path: Path) -> None:
    writer = MapWriter(tmp_path, stores, {"one": {"slide-001": 3}, "two": {"slide-001": 3, "slide-999": 1}})
    assert writer.reason is not None
    assert writer.reason.startswith("the attention of 1 of 2 cases is not stored")
    assert "slide-999.zarr" in writer.reason
