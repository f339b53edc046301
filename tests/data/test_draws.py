from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, BagError, Target, collate
from e2e_abmilx.data.draws import AttentionDraw, PatchDraw, RegionalDraw, UniformDraw
from e2e_abmilx.data.samplers import Draw
from e2e_abmilx.data.slide_bags import RandomBags
from e2e_abmilx.store import PatchStore, write_store

SIDES = {"a": (6, 3), "b": (3, 1), "c": (2, 0)}  # patches along each side of a square slide, at the two scales
CASES = [Case("one", ("a",)), Case("two", ("a", "b")), Case("three", ("c",))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of three square slides whose patches lie on a grid, in random order."""
    folder, rng = tmp_path_factory.mktemp("draws"), np.random.default_rng(0)
    for slide, sides in SIDES.items():
        write_store(folder / f"{slide}.zarr", {0.5 * 2**k: _grid(rng, side, 32 * 2**k) for k, side in enumerate(sides)})
    return folder


def _grid(rng: np.random.Generator, side: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    coords = rng.permutation(np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)) * pitch + 64
    return np.zeros((len(coords), 8, 8, 3), np.uint8), coords


def _stores(cache: Path, case: Case) -> list[PatchStore]:
    return [PatchStore(cache / f"{slide}.zarr") for slide in case.slides]


def _counts(cache: Path, case: Case) -> list[int]:
    return [sum(store.num_patches(scale) for store in _stores(cache, case)) for scale in (0, 1)]


def _attending(cache: Path, fraction: float = 1.0, power: float = 1.0) -> AttentionDraw:
    """Return a draw by an attention that rises with the position of a patch."""
    draw = AttentionDraw(fraction)
    for case in CASES:
        scales = [np.arange(1, count + 1, dtype=np.float32) ** power for count in _counts(cache, case)]
        scored = [one / one.sum() for one in scales if len(one)]  # slide c has no coarse patch
        draw.attention = {**draw.attention, case.id: scored}
    return draw


def _bags(cache: Path, draw: PatchDraw, s: int, coarse_fraction: float = 0.25, seed: int = 0) -> RandomBags:
    targets = [Target(0)] * len(CASES)
    return RandomBags(CASES, targets, cache, patches_per_bag=s, coarse_fraction=coarse_fraction, seed=seed, draw=draw)


def _draws(cache: Path) -> list[PatchDraw]:
    return [UniformDraw(), RegionalDraw(1), RegionalDraw(2), RegionalDraw(8), *map(_attending, [cache] * 2, [0.5, 1.0])]


@given(st.data(), st.integers(0, 60), st.integers(0, 2), st.integers(0, 1), st.integers(0, 9))
@settings(max_examples=60)
def test_every_draw_returns_distinct_patches(
    cache: Path, data: st.DataObject, wanted: int, index: int, scale: int, seed: int
) -> None:
    case = CASES[index]
    available = _counts(cache, case)[scale]
    for draw in _draws(cache):
        arguments = (case.id, scale, _stores(cache, case), wanted)
        chosen, again = (draw.choose(np.random.default_rng(seed), *arguments) for _ in range(2))
        assert len(chosen) == len(set(chosen.tolist())) == min(wanted, available)
        assert set(chosen.tolist()) <= set(range(available))
        assert chosen.tolist() == again.tolist()


def test_the_uniform_draw_is_the_default_and_stays_that_of_earlier_versions(cache: Path) -> None:
    bags = RandomBags(CASES, [Target(0)] * 3, cache, patches_per_bag=16, coarse_fraction=0.25, seed=5)
    rng = Draw(2, 1).rng(5, "two")
    expected = [np.sort(rng.permutation(45)[:12]), np.sort(rng.permutation(10)[:4])]
    bag = bags[Draw(2, 1)]
    for scale, chosen in enumerate(expected):
        coords = np.concatenate([store.coords(scale) for store in _stores(cache, CASES[1])])[chosen]
        assert bag.coords[bag.scale == scale].tolist() == coords.tolist()


def _seen(bag: Bag) -> set[tuple[int, ...]]:
    """Return scale and coordinates of the patches of a bag; where slides share coordinates, fewer than patches."""
    return {(scale, *xy) for scale, xy in zip(bag.scale.tolist(), bag.coords.tolist(), strict=True)}


@pytest.mark.parametrize("index", range(6))
def test_bags_of_every_draw(cache: Path, index: int) -> None:
    """Scales, several slides, few patches and both kinds of padding are as for uniform bags."""
    bags = _bags(cache, _draws(cache)[index], 16)
    for case, (coarse, fine) in enumerate([(4, 12), (4, 12), (0, 4)]):
        bag = bags[Draw(1, case)]
        assert ((bag.scale == 1).sum(), (bag.scale == 0).sum()) == (coarse, fine)
    assert torch.equal(bags[Draw(1, 1)].coords, bags[Draw(1, 1)].coords)
    assert len({str(bags[draw].coords.tolist()) for draw in (Draw(1, 1), Draw(2, 1), Draw(1, 1, 1))}) == 3
    bags.padding = "duplicate"
    short = bags[Draw(1, 2)]
    assert len(short.coords) == 12
    assert len(_seen(short)) == 4


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=40)
def test_regions_give_equally_many_patches(cache: Path, wanted: int, regions: int, seed: int) -> None:
    """A region gives fewer than another by more than one only if it has no further patch."""
    draw, case = RegionalDraw(regions), CASES[1]
    stores = _stores(cache, case)
    region = np.concatenate([draw.regions_of(store.coords()) + 100 * k for k, store in enumerate(stores)])
    chosen = draw.choose(np.random.default_rng(seed), case.id, 0, stores, wanted)
    given_by, there = Counter(region[chosen].tolist()), Counter(region.tolist())
    most = max(given_by.values())
    assert all(given_by[one] >= min(most - 1, count) for one, count in there.items())


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=60, unique=True), st.integers(1, 9)
)
def test_a_region_is_a_rectangle_of_its_slide(positions: list[tuple[int, int]], regions: int) -> None:
    """The rectangles are ``regions`` by ``regions``, equal up to a patch, and do not overlap."""
    coords = np.array(positions) * 100
    numbers = RegionalDraw(regions).regions_of(coords)
    assert numbers.min() >= 0
    assert numbers.max() < regions**2
    for axis, places in ((0, numbers % regions), (1, numbers // regions)):
        along = coords[:, axis]
        first, extent = along.min(), along.max() - along.min() + 1
        for place in set(places.tolist()):
            own = along[places == place]
            assert first + place * extent / regions <= own.min() <= own.max() < first + (place + 1) * extent / regions


def test_a_full_grid_has_equal_regions(cache: Path) -> None:
    store = PatchStore(cache / "a.zarr")  # 6 by 6 patches
    for regions, patches in ((1, 36), (2, 9), (3, 4), (6, 1)):
        assert np.bincount(RegionalDraw(regions).regions_of(store.coords())).tolist() == [patches] * regions**2
    coords = store.coords()
    upper_left = RegionalDraw(2).regions_of(coords) == 0
    assert coords[upper_left].max() < coords[~upper_left].max(1).min()


def _frequencies(cache: Path, draw: PatchDraw, wanted: int, times: int = 2000) -> np.ndarray:
    rng, stores = np.random.default_rng(0), _stores(cache, CASES[1])
    chosen = np.concatenate([draw.choose(rng, "two", 0, stores, wanted) for _ in range(times)])
    return np.bincount(chosen, minlength=45) / times


def test_every_patch_can_be_drawn(cache: Path) -> None:
    for draw in _draws(cache):
        assert _frequencies(cache, draw, 5).min() > 0
    # one patch of each of 8 regions, of which those of the large slide have 9 patches
    frequencies = _frequencies(cache, RegionalDraw(2), 8)
    assert frequencies[:36] == pytest.approx(1 / 9, abs=0.03)


def test_attention_decides_how_often_a_patch_is_drawn(cache: Path) -> None:
    draw = _attending(cache)
    assert _frequencies(cache, draw, 1) == pytest.approx(draw.attention["two"][0], abs=0.02)
    half = _frequencies(cache, _attending(cache, 0.5), 2)  # one patch by attention, another uniformly
    assert half == pytest.approx(draw.attention["two"][0] + (1 - draw.attention["two"][0]) / 44, abs=0.02)
    equal = _frequencies(cache, _attending(cache, power=0), 9)
    assert equal == pytest.approx(9 / 45, abs=0.04)


def test_sharp_attention_draws_the_most_attended_patches(cache: Path) -> None:
    draw, stores = _attending(cache), _stores(cache, CASES[0])
    attention = np.zeros(36, np.float32)
    attention[[3, 20, 35]] = [0.9, 0.1, 1e-20]
    draw.attention = {"one": [attention, np.zeros(9, np.float32)]}
    for seed in range(20):
        assert set(draw.choose(np.random.default_rng(seed), "one", 0, stores, 8).tolist()) >= {3, 20, 35}
    rest = [frozenset(draw.choose(np.random.default_rng(seed), "one", 0, stores, 8).tolist()) for seed in range(20)]
    assert len(set(rest)) > 10  # patches whose attention has underflowed to 0 stay random


def test_the_first_epoch_draws_uniformly(cache: Path) -> None:
    arguments = ("one", 0, _stores(cache, CASES[0]), 9)
    uniform, attending = (
        draw.choose(np.random.default_rng(1), *arguments) for draw in (UniformDraw(), AttentionDraw())
    )
    assert uniform.tolist() == attending.tolist()


def test_cases_that_were_not_scored_are_refused(cache: Path) -> None:
    draw = _attending(cache)
    with pytest.raises(BagError, match="case four has 36 patches at scale 0, and the model has not scored them"):
        draw.choose(np.random.default_rng(0), "four", 0, _stores(cache, CASES[0]), 4)
    with pytest.raises(BagError, match="case two has 36 patches"):
        draw.choose(np.random.default_rng(0), "two", 0, _stores(cache, CASES[0]), 4)


def test_attention_survives_a_checkpoint(cache: Path, tmp_path: Path) -> None:
    draw, again = _attending(cache), AttentionDraw(1.0)
    draw.epoch = 3
    torch.save(draw.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.epoch == 3
    for index in range(3):
        assert torch.equal(
            _bags(cache, draw, 16)[Draw(3, index)].coords, _bags(cache, again, 16)[Draw(3, index)].coords
        )


@pytest.mark.parametrize("index", [2, 4])
def test_workers_do_not_change_bags(cache: Path, index: int) -> None:
    bags = _bags(cache, _draws(cache)[index], 16)
    order: Sequence[Draw] = [Draw(1, case, repeat) for repeat in range(2) for case in range(3)]
    batches = [
        list(DataLoader(bags, sampler=order, collate_fn=collate, num_workers=workers, batch_size=2))  # type: ignore[arg-type]
        for workers in (0, 2)
    ]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.coords, other.coords)
        assert torch.equal(one.scale, other.scale)


def test_only_attention_follows_the_model(cache: Path) -> None:
    assert _bags(cache, AttentionDraw(), 4).follows_model
    assert not _bags(cache, RegionalDraw(), 4).follows_model


def test_stores_without_coordinates_have_no_regions(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", {0.5: (np.zeros((4, 8, 8, 3), np.uint8), None)})
    settings = {"patches_per_bag": 2, "coarse_fraction": 0.0, "seed": 0}
    with pytest.raises(BagError, match=r"a\.zarr has no coords, so RegionalDraw cannot tell the regions"):
        RandomBags(CASES[:1], [Target(0)], tmp_path, **settings, draw=RegionalDraw())  # type: ignore[arg-type]
    RandomBags(CASES[:1], [Target(0)], tmp_path, **settings)  # type: ignore[arg-type]


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="regions is 0"):
        RegionalDraw(0)
    for fraction in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"fraction is .* must be in \(0, 1\]"):
            AttentionDraw(fraction)
