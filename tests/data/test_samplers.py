from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from e2e_abmilx.data.samplers import CaseSampler, Draw, EpochSampler, Progress
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
def test_processes_share_an_epoch_evenly(size: int, processes: int, epoch: int) -> None:
    if size < processes:
        with pytest.raises(InputError, match="cannot be shared"):
            EpochSampler(size, seed=0, num_replicas=processes)
        return
    alone = EpochSampler(size, seed=0)
    alone.set_epoch(epoch)
    order = list(alone)
    shares = []
    for rank in range(processes):
        sampler = EpochSampler(size, seed=0, rank=rank, num_replicas=processes)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1]) == size // processes
    together = [draw for turn in zip(*shares, strict=True) for draw in turn]
    assert together == order[: len(together)]


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(0, 3))
def test_balanced_draws_take_classes_equally_often(classes: list[int], epoch: int) -> None:
    sampler = EpochSampler(len(classes), seed=0, classes=classes)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(set(drawn)) == len(classes)
    counts = Counter(classes[draw.case] for draw in drawn)
    assert set(counts) == set(classes)
    assert max(counts.values()) - min(counts.values()) <= 1
    for label, count in counts.items():  # and the cases of a class equally often
        of_class = Counter({case: 0 for case, own in enumerate(classes) if own == label})
        of_class.update(draw.case for draw in drawn if classes[draw.case] == label)
        assert max(of_class.values()) - min(of_class.values()) <= 1
        assert count == sum(of_class.values())


def test_an_interrupted_epoch_is_gone_on_with() -> None:
    whole = EpochSampler(10, seed=0)
    whole.set_epoch(2)
    resumed = EpochSampler(10, seed=0, progress=Progress(2, 4))
    resumed.set_epoch(2)
    assert list(resumed) == list(whole)[4:]
    assert len(resumed) == 10  # of the epoch: Lightning counts what was done before
    resumed.set_epoch(3)
    assert len(list(resumed)) == 10


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 5))
def test_cases_are_evaluated_whole_once_and_in_step(lengths: list[int], processes: int) -> None:
    case_of = [case for case, length in enumerate(lengths) for _ in range(length)]
    if len(lengths) < processes:
        with pytest.raises(InputError, match="cannot be shared"):
            CaseSampler(case_of, num_replicas=processes)
        return
    shares = [list(CaseSampler(case_of, rank=rank, num_replicas=processes)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    real = [[part for part in share if part < len(case_of)] for share in shares]
    assert sorted(part for share in real for part in share) == list(range(len(case_of)))
    assert all(share == sorted(share) for share in shares)
    owners = [{case_of[part] for part in share} for share in real]
    assert sum(map(len, owners)) == len(lengths)
    assert all(owners)
    assert len(shares[0]) <= -(-len(case_of) // processes) + max(
        lengths
    )  # no process idles for more than a case


def test_lightning_leaves_both_alone() -> None:
    assert isinstance(EpochSampler(2, seed=0), DistributedSampler)
    assert isinstance(CaseSampler([0, 1]), DistributedSampler)
    assert Draw(0, 1) == (0, 1, 0)
