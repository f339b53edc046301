"""Runs: as many patches as wanted, each once and equally likely, in few contiguous pieces; only from random order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.data.bag import BagError
from e2e_abmilx.data.draws import RunDraw
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.store.format import ORDER_SEED


class Counts:
    """Stores in random order of which only the numbers of patches matter, so that they may be large."""

    order_seed = 0

    def __init__(self, count: int) -> None:
        self.count = count

    def num_patches(self, scale: int = 0) -> int:
        return self.count


def choose(run_length: int, seed: int, counts: list[int], wanted: int) -> np.ndarray:
    stores: Any = [Counts(count) for count in counts]
    return RunDraw(run_length).choose(np.random.default_rng(seed), "a", 0, stores, wanted)


def pieces(chosen: np.ndarray) -> int:
    """Return the number of contiguous pieces of a set of positions."""
    return 1 + int((np.diff(np.sort(chosen)) > 1).sum()) if len(chosen) else 0


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=4), st.integers(0, 700), st.integers(1, 90), st.integers(0, 9)
)
def test_runs_are_few_and_patches_distinct(counts: list[int], wanted: int, run_length: int, seed: int) -> None:
    chosen, total = choose(run_length, seed, counts, wanted), sum(counts)
    assert len(chosen) == len(set(chosen.tolist())) == min(wanted, total)
    assert set(chosen.tolist()) <= set(range(total))
    assert pieces(chosen) <= -(-wanted // run_length) + 1  # one may be divided by the end of the circle
    assert chosen.tolist() == choose(run_length, seed, counts, wanted).tolist()


@pytest.mark.parametrize(("total", "wanted", "run_length"), [(97, 20, 8), (40, 39, 16), (33, 1, 64), (50, 16, 1)])
def test_every_patch_is_equally_likely(total: int, wanted: int, run_length: int) -> None:
    """Over 4000 draws the frequencies differ by less than five standard errors of independent draws of that chance."""
    counts = np.zeros(total)
    for seed in range(4000):
        counts[choose(run_length, seed, [total], wanted)] += 1
    chance = wanted / total
    assert (np.abs(counts / 4000 - chance) < 5 * np.sqrt(chance * (1 - chance) / 4000)).all()


def test_slides_give_patches_in_proportion() -> None:
    taken = np.array([(choose(64, seed, [3000, 1000], 512) >= 3000).sum() for seed in range(600)])
    assert abs(taken.mean() - 128) < 8


def test_a_bag_of_512_takes_eight_runs() -> None:
    """The fine patches of a bag are 384 and the coarse ones 128: with the summary of the slide, nine requests."""
    fine = [pieces(choose(64, seed, [20_000], 384)) for seed in range(50)]
    coarse = [pieces(choose(64, seed, [5000], 128)) for seed in range(50)]
    assert np.mean(fine) + np.mean(coarse) <= 8.1


def test_local_stores_are_refused(tmp_path: Path) -> None:
    patches = np.zeros((4, 8, 8, 3), np.uint8)
    local = write_store(tmp_path / "a.zarr", {0.5: (patches, None)})
    with pytest.raises(BagError, match=r"a\.zarr lie row by row.*leave data\.draw out"):
        RunDraw().choose(np.random.default_rng(0), "a", 0, [local], 2)
    with pytest.raises(BagError, match="lie row by row"):
        RunDraw().check(iter([local]))
    shuffled = write_store(tmp_path / "b.zarr", {0.5: (patches, None)}, attributes={ORDER_SEED: 0})
    assert len(RunDraw().choose(np.random.default_rng(0), "a", 0, [PatchStore(shuffled.path)], 2)) == 2


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="run_length is 0"):
        RunDraw(0)
