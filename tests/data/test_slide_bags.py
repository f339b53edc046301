import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import BagError, Target, collate
from e2e_abmilx.data.samplers import Draw
from e2e_abmilx.data.slide_bags import RandomBags, WholeSlides, check_stores
from e2e_abmilx.store import CohortIndex, PatchStore, StoreError, cohort_index, write_store


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides of flat patches whose colours encode slide, scale and index."""
    folder = tmp_path_factory.mktemp("bags")
    for slide, (fine, coarse) in {"a": (20, 6), "b": (5, 2), "c": (3, 0)}.items():
        write_store(folder / f"{slide}.zarr", {0.5: _flat(slide, 0, fine), 1.0: _flat(slide, 1, coarse)})
    return folder


def _flat(slide: str, scale: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    patches = np.zeros((count, 16, 16, 3), np.uint8)
    patches[..., 0] = 10 * np.arange(count)[:, None, None]
    patches[..., 1] = 100 * scale
    patches[..., 2] = 60 * "abc".index(slide)
    return patches, np.stack([np.arange(count), np.full(count, scale)], 1) * 16


def _bags(cache: Path, s: int, coarse_fraction: float, seed: int = 0) -> RandomBags:
    cases = [Case("one", ("a",), "0"), Case("two", ("a", "b"), "1"), Case("three", ("c",), "0")]
    targets = [Target(0), Target(1), Target(0)]
    return RandomBags(cases, targets, cache, patches_per_bag=s, coarse_fraction=coarse_fraction, seed=seed)


@given(st.integers(1, 40), st.floats(0, 0.9), st.integers(0, 5), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_a_draw_has_the_requested_scales_without_replacement(
    cache: Path, s: int, coarse_fraction: float, epoch: int, index: int
) -> None:
    bags = _bags(cache, s, coarse_fraction)
    bag = bags[Draw(epoch, index)]
    slides = bags.cases[index].slides
    counts = [sum(PatchStore(cache / f"{slide}.zarr").num_patches(k) for slide in slides) for k in (0, 1)]
    coarse = int(s * coarse_fraction)
    assert (bag.scale == 1).sum() == min(coarse, counts[1])
    assert (bag.scale == 0).sum() == min(s - coarse, counts[0])
    seen = {(int(p[0, 0, 2]), *c.tolist(), int(k)) for p, c, k in zip(bag.patches, bag.coords, bag.scale, strict=True)}
    assert len(seen) >= len(bag.mask) - 1  # without replacement (JPEG may shift the slide's colour by one)
    again = bags[Draw(epoch, index)]
    assert torch.equal(bag.patches, again.patches)


def test_a_draw_depends_on_seed_epoch_and_case_only(cache: Path) -> None:
    bags = _bags(cache, 8, 0.25)
    assert not torch.equal(bags[Draw(0, 0)].coords, bags[Draw(1, 0)].coords)
    assert not torch.equal(bags[Draw(0, 0)].coords, _bags(cache, 8, 0.25, seed=1)[Draw(0, 0)].coords)
    reordered = RandomBags(bags.cases[::-1], bags.targets[::-1], cache, patches_per_bag=8, coarse_fraction=0.25, seed=0)
    assert torch.equal(bags[Draw(3, 0)].coords, reordered[Draw(3, 2)].coords)


def test_pixels_belong_to_their_coordinates(cache: Path) -> None:
    bag = _bags(cache, 16, 0.25)[Draw(0, 1)]
    index, scale = bag.coords[:, 0] // 16, bag.scale
    assert (bag.patches[:, 8, 8, 0].int() - 10 * index).abs().max() <= 6
    assert (bag.patches[:, 8, 8, 1].int() - 100 * scale).abs().max() <= 6


def test_draws_are_uniform(cache: Path) -> None:
    bags = _bags(cache, 4, 0.0)
    drawn = torch.cat([bags[Draw(epoch, 0)].coords[:, 0] // 16 for epoch in range(600)])
    counts = torch.bincount(drawn, minlength=20).double()
    expected = 600 * 4 / 20
    assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square, 19 degrees of freedom: p = 0.0001


def test_padding_is_masked_and_channels_come_first(cache: Path) -> None:
    bags = _bags(cache, 16, 0.25)
    batch = collate([bags[Draw(0, 0)], bags[Draw(0, 2)]])
    assert batch.patches.shape == (2, 16, 3, 16, 16)
    assert batch.patches.dtype == torch.uint8
    assert batch.mask.sum(1).tolist() == [16, 3]
    assert batch.patches[1, 3:].sum() == 0
    assert batch.cases == ("one", "three")
    assert batch.label.tolist() == [0, 0]
    assert torch.equal(batch.patches[1, :3].permute(0, 2, 3, 1), bags[Draw(0, 2)].patches)


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 100])
def test_whole_slides_cover_every_fine_patch_once(cache: Path, chunk_size: int) -> None:
    cases = [Case("two", ("a", "b"), "1"), Case("three", ("c",), "0")]
    parts = [collate([part]) for part in WholeSlides(cases, [Target(1), Target(0)], cache, chunk_size=chunk_size)]
    assert max(part.mask.shape[1] for part in parts) <= chunk_size
    assert [part.cases[0] for part in parts if part.last] == ["two", "three"]
    seen = torch.cat([part.coords[0, :, 0] for part in parts if part.cases == ("two",)]) // 16
    assert seen.tolist() == [*range(20), *range(5)]
    assert all((part.scale == 0).all() for part in parts)


def test_all_scales_can_be_evaluated(cache: Path) -> None:
    cases = [Case("two", ("a", "b"), "1")]
    slides = WholeSlides(cases, [Target(1)], cache, chunk_size=7, scales="all")
    parts = [slides[index] for index in range(len(slides))]
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    scale = torch.cat([part.scale for part in parts])
    assert torch.bincount(scale).tolist() == [25, 8]


def test_short_bags_can_repeat_patches(cache: Path) -> None:
    bags = _bags(cache, 16, 0.25)
    bags.padding = "duplicate"
    bag = bags[Draw(0, 0)]  # 20 fine and 6 coarse patches suffice
    assert len({tuple(row) for row in bag.coords.tolist()}) == 16
    bag = bags[Draw(0, 2)]  # 3 fine and no coarse patches
    assert bag.mask.sum() == 12
    assert set((bag.coords[:, 0] // 16).tolist()) == {0, 1, 2}


def test_repeated_draws_in_an_epoch_are_different_bags(cache: Path) -> None:
    bags = _bags(cache, 8, 0.25)
    assert not torch.equal(bags[Draw(0, 0)].coords, bags[Draw(0, 0, 1)].coords)
    assert torch.equal(bags[Draw(0, 0, 1)].coords, bags[Draw(0, 0, 1)].coords)


def test_stores_that_cannot_be_used_in_the_same_bags(cache: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", {0.5: _flat("a", 0, 4)})
    write_store(tmp_path / "none.zarr", {0.5: _flat("a", 0, 0)})
    write_store(tmp_path / "other.zarr", {0.25: _flat("a", 0, 4)})
    with pytest.raises(BagError, match="case x would be an empty bag"):
        check_stores([Case("x", ("none",))], CohortIndex(tmp_path))
    with pytest.raises(BagError, match="cache all slides with the same settings"):
        check_stores([Case("x", ("a",)), Case("y", ("other",))], CohortIndex(tmp_path))
    check_stores([Case("x", ("a",))], CohortIndex(tmp_path))


@pytest.mark.parametrize("indexed", [False, True])
def test_an_index_changes_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: bool) -> None:
    monkeypatch.setattr(cohort_index, "SETTLED_NS", -(10**9))  # index stores that were made just now
    for name, scales in {
        "a": {0.5: _flat("a", 0, 4)},
        "b": {0.5: _flat("b", 0, 2)},
        "c": {0.25: _flat("c", 0, 4)},
    }.items():
        write_store(tmp_path / f"{name}.zarr", scales)
    cases = [Case(name, (name,)) for name in "abc"]
    WholeSlides(cases, [Target()] * 3, tmp_path, chunk_size=2)
    if indexed:
        check_stores(cases[:2], CohortIndex(tmp_path))
        assert (tmp_path / cohort_index.INDEX).exists()
    with pytest.raises(BagError) as other_scales:
        check_stores(cases, CohortIndex(tmp_path))
    assert str(other_scales.value) == (
        f"{tmp_path}/c.zarr has 16 px patches at (0.25,) µm/px, a.zarr has 16 px at (0.5,); cache all slides with the same"
        " settings"
    )
    shutil.rmtree(tmp_path / "b.zarr")
    with pytest.raises(StoreError, match=f"no patch store at {tmp_path}/b.zarr"):
        check_stores(cases, CohortIndex(tmp_path))
    write_store(tmp_path / "b.zarr", {0.5: _flat("b", 0, 0)})
    with pytest.raises(
        BagError, match=f"{tmp_path}/b.zarr holds no patch: case b would be an empty bag; cache it again"
    ):
        check_stores(cases, CohortIndex(tmp_path))


def test_slides_rebuilt_after_they_were_counted_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", {0.5: _flat("a", 0, 4)})
    bags = WholeSlides([Case("x", ("a",))], [Target()], tmp_path, chunk_size=8)
    assert len(bags[0].mask) == 4
    shutil.rmtree(tmp_path / "a.zarr")
    write_store(tmp_path / "a.zarr", {0.5: _flat("a", 0, 4)})
    assert len(bags[0].mask) == 4  # an equal store is welcome
    shutil.rmtree(tmp_path / "a.zarr")
    write_store(tmp_path / "a.zarr", {0.5: _flat("a", 0, 9)})
    with pytest.raises(BagError, match=r"a\.zarr was rebuilt after its patches had been counted; start again"):
        bags[0]


def test_multi_labels(cache: Path) -> None:
    bags = _bags(cache, 4, 0.25)
    bags.targets = [Target((1, 0, -1)), Target((0, 1, 1)), Target((-1, -1, 1))]
    batch = collate([bags[Draw(0, 0)], bags[Draw(0, 2)]])
    assert batch.label.tolist() == [[1, 0, -1], [-1, -1, 1]]
