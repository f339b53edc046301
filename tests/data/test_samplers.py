import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from e2e_abmilx.data.samplers import CaseSampler, Draw, EpochSampler, Progress, rows_by_slide
from e2e_abmilx.errors import InputError


def test_sampler_shuffles_by_epoch() -> None:
    sampler = EpochSampler(10, seed=0)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert {draw.epoch for draw in second} == {1}
    assert sorted(draw.case for draw in second) == list(range(10))
    assert [draw.case for draw in first] != [draw.case for draw in second]
    assert [draw.case for draw in EpochSampler(10, seed=1)] != [draw.case for draw in first]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_is_distributed_evenly_among_processes(size: int, processes: int, epoch: int) -> None:
    if size < processes:
        with pytest.raises(InputError, match="cannot be distributed"):
            EpochSampler(size, seed=0, num_replicas=processes)
        return
    alone = EpochSampler(size, seed=0)
    alone.set_epoch(epoch)
    order = list(alone)
    assigned = []
    for rank in range(processes):
        sampler = EpochSampler(size, seed=0, rank=rank, num_replicas=processes)
        sampler.set_epoch(epoch)
        assigned.append(list(sampler))
        assert len(sampler) == len(assigned[-1]) == size // processes
    together = [draw for turn in zip(*assigned, strict=True) for draw in turn]
    assert together == order[: len(together)]


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(0, 3))
def test_balanced_draws_contain_all_classes_equally_often(classes: list[int], epoch: int) -> None:
    sampler = EpochSampler(len(classes), seed=0, classes=classes)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(set(drawn)) == len(classes)
    counts = Counter(classes[draw.case] for draw in drawn)
    assert set(counts) == set(classes)
    assert max(counts.values()) - min(counts.values()) <= 1
    for label, count in counts.items():  # the cases of a class are drawn equally often as well
        of_class = Counter({case: 0 for case, own in enumerate(classes) if own == label})
        of_class.update(draw.case for draw in drawn if classes[draw.case] == label)
        assert max(of_class.values()) - min(of_class.values()) <= 1
        assert count == sum(of_class.values())


@given(st.lists(st.integers(1, 3), min_size=3, max_size=20), st.integers(1, 3), st.integers(0, 3), st.integers(0, 60))
def test_cases_can_be_drawn_several_times(times: list[int], processes: int, epoch: int, done: int) -> None:
    """All draws of an epoch are distributed among the processes, each once; an interrupted epoch goes on."""
    size = len(times)
    assigned = []
    for rank in range(processes):
        how = {"seed": 0, "times": times, "rank": rank, "num_replicas": processes}
        sampler = EpochSampler(size, **how)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        assigned.append(list(sampler))
        assert len(sampler) == len(assigned[-1]) == sum(times) // processes
        resumed = EpochSampler(size, **how, progress=Progress(epoch, done))  # type: ignore[arg-type]
        resumed.set_epoch(epoch)
        assert list(resumed) == assigned[-1][done:]
    drawn = [draw for draws in assigned for draw in draws]
    wanted = {Draw(epoch, case, repeat) for case, own in enumerate(times) for repeat in range(own)}
    assert len(drawn) == len(set(drawn))
    assert set(drawn) <= wanted
    assert len(wanted) - len(drawn) < processes
    alone = EpochSampler(size, seed=0, times=times)
    alone.set_epoch(epoch)
    together = [draw for turn in zip(*assigned, strict=True) for draw in turn]
    assert together == list(alone)[: len(together)]


def test_the_order_of_single_draws_stays_that_of_earlier_versions() -> None:
    sampler = EpochSampler(9, seed=4)
    sampler.set_epoch(2)
    assert list(sampler) == [Draw(2, case) for case in np.random.default_rng([4, 2]).permutation(9).tolist()]


def test_an_interrupted_epoch_is_resumed() -> None:
    whole = EpochSampler(10, seed=0)
    whole.set_epoch(2)
    resumed = EpochSampler(10, seed=0, progress=Progress(2, 4))
    resumed.set_epoch(2)
    assert list(resumed) == list(whole)[4:]
    assert len(resumed) == 10  # the whole epoch, since Lightning counts completed draws
    resumed.set_epoch(3)
    assert len(list(resumed)) == 10


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 5))
def test_whole_cases_are_evaluated_once_in_equally_many_steps(lengths: list[int], processes: int) -> None:
    case_of = [case for case, length in enumerate(lengths) for _ in range(length)]
    if len(lengths) < processes:
        with pytest.raises(InputError, match="cannot be distributed"):
            CaseSampler(case_of, num_replicas=processes)
        return
    assigned = [list(CaseSampler(case_of, rank=rank, num_replicas=processes)) for rank in range(processes)]
    assert len({len(parts) for parts in assigned}) == 1
    real = [[part for part in parts if part < len(case_of)] for parts in assigned]
    assert sorted(part for parts in real for part in parts) == list(range(len(case_of)))
    assert all(parts == sorted(parts) for parts in assigned)
    owners = [{case_of[part] for part in parts} for parts in real]
    assert sum(map(len, owners)) == len(lengths)
    assert all(owners)
    # no process is idle for longer than one case takes
    assert len(assigned[0]) <= -(-len(case_of) // processes) + max(lengths)


def test_lightning_replaces_neither_sampler() -> None:
    assert isinstance(EpochSampler(2, seed=0), DistributedSampler)
    assert isinstance(CaseSampler([0, 1]), DistributedSampler)


def test_an_integer_is_a_draw_of_the_first_epoch() -> None:
    assert Draw.of(1) == Draw(0, 1) == (0, 1, 0)
    assert Draw.of(Draw(2, 1, 3)) == (2, 1, 3)


def test_every_part_of_a_draw_changes_its_random_numbers() -> None:
    drawn = [
        Draw(2, 0, 1).rng(5, "a"), Draw(2, 7, 1).rng(5, "a"),  # the position of the case does not count
        Draw(3, 0, 1).rng(5, "a"), Draw(2, 0, 2).rng(5, "a"), Draw(2, 0, 1).rng(6, "a"), Draw(2, 0, 1).rng(5, "b"),
    ]  # fmt: skip
    numbers = [rng.integers(2**60) for rng in drawn]
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 5


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_rows_of_slides_are_the_chosen_positions(sizes: list[int], shuffler: random.Random) -> None:
    positions = [(slide, row) for slide, size in enumerate(sizes) for row in range(size)]
    chosen = [shuffler.randrange(len(positions)) for _ in range(2 * len(positions))]  # with repetition
    rows = rows_by_slide(np.array(chosen, dtype=np.int64), sizes)
    assert [(slide, row) for slide, own in enumerate(rows) for row in own.tolist()] == sorted(
        positions[index] for index in chosen
    )
