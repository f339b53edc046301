"""Waiting time, memory of prefetched batches, and the error of a full shared memory."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from e2e_abmilx.data.bag import EMPTY_BAG, Bag, BagSource, collate
from e2e_abmilx.data.loaders import BagLoader, Padded, WaitClock, WorkerStart, plan_workers, recommended_workers
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import StoreError

GIB = 2**30


class _Bags(BagSource):
    """Twelve bags, each of which takes some time; one may kill its worker."""

    size_settings = "data.eval_chunk_size"

    def __init__(self, seconds: float = 0.0, killer: int | None = None) -> None:
        self.seconds, self.killer = seconds, killer

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Bag:
        time.sleep(self.seconds)
        if index == self.killer:
            os.kill(os.getpid(), signal.SIGBUS)
        return EMPTY_BAG


def _loader(bags: BagSource, workers: int = 0) -> BagLoader:
    return BagLoader(bags, collate_fn=collate, num_workers=workers)


def test_waiting_time_is_the_time_in_next() -> None:
    loader = _loader(_Bags(0.02))
    for _ in loader:
        time.sleep(0.01)  # training, not waiting
    passed = time.perf_counter() - loader.clock.started
    assert 12 * 0.02 <= loader.clock.waited_s <= passed - 12 * 0.01


def test_a_pass_is_prepared_before_its_workers_start() -> None:
    bags = _Bags()
    loader = _loader(bags, workers=1)
    seconds = iter([0.0, 0.05])

    def prepare() -> None:
        bags.seconds = next(seconds)

    loader.before_pass = prepare
    for expected in (0.0, 12 * 0.05):
        for _ in loader:
            pass
        assert loader.clock.waited_s >= expected


def test_prefetched_batches_cause_no_waiting() -> None:
    loader = _loader(_Bags(0.005), workers=1)
    batches = iter(loader)
    next(batches)
    before = loader.clock.waited_s
    for _ in range(8):
        time.sleep(0.1)
        next(batches)
    assert loader.clock.waited_s - before < 0.4  # a generous limit, for a busy machine


def test_each_pass_has_its_own_clock() -> None:
    loader = _loader(_Bags(0.01))
    list(loader)
    first = loader.clock
    list(loader)
    assert loader.clock is not first
    assert loader.clock.started >= first.started + first.waited_s


def test_the_clock_stops_between_batches() -> None:
    clock = WaitClock()
    clock.ask()
    clock.receive()
    before = clock.waited_s
    time.sleep(0.02)
    assert clock.waited_s == before


@pytest.mark.filterwarnings("ignore")
def test_a_full_shared_memory_is_named() -> None:
    with pytest.raises(
        InputError,
        match=r"bus error.*/dev/shm is full.*data.num_workers 1 keeps.*data\.num_workers or data\.eval_chunk_size",
    ):
        list(_loader(Padded(_Bags(killer=3)), workers=1))


def test_other_errors_are_not_changed() -> None:
    class Broken(_Bags):
        def __getitem__(self, index: int) -> Bag:
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(_loader(Broken(), workers=1))


class _Damaged(_Bags):
    def __getitem__(self, index: int) -> Bag:
        try:
            raise KeyError(index)
        except KeyError as error:
            raise StoreError("a.zarr, patch 3 is damaged:\nrebuild this store") from error


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_one_message(workers: int) -> None:
    with pytest.raises(StoreError) as caught:
        list(_loader(Padded(_Damaged()), workers))
    assert str(caught.value) == "a.zarr, patch 3 is damaged:\nrebuild this store"
    assert workers == 0 or "Traceback" in str(caught.value.__cause__)  # for --debug


@pytest.mark.parametrize("megabytes", [1, 20, 100, 403, 2000, 9000])
@pytest.mark.parametrize("workers", [1, 6, 8, 16])
@pytest.mark.parametrize("processes", [1, 2, 8])
def test_the_memory_of_prefetched_batches_is_limited(megabytes: int, workers: int, processes: int) -> None:
    plan = plan_workers(workers, megabytes * 10**6, processes=processes)
    assert 1 <= plan.num_workers <= workers
    assert 1 <= plan.prefetch_factor <= 2
    prefetched = plan.num_workers * plan.prefetch_factor * megabytes * 10**6
    assert prefetched <= 4 * GIB / processes or plan == (1, 1)


def test_workers_that_fit_into_memory_are_all_used() -> None:
    assert plan_workers(8, 10**6) == (8, 2)
    assert plan_workers(0, 10**9) == (0, 2)
    assert plan_workers(6, 0) == (6, 2)


def test_largest_bytes_of_slides(cohort: Path, stores: Path) -> None:
    data = SlideDataModule(
        stores, cohort / "labels.csv", columns={"label": "lesion"}, patches_per_bag=8, eval_chunk_size=7, num_workers=0
    )
    data.setup("fit")
    patch = 64 * 64 * 3
    assert data.random_bags("train").largest_bytes == 8 * patch  # type: ignore[attr-defined]
    bags, _ = data.whole_bags("val")
    assert (
        Padded(bags).largest_bytes == 7 * patch == max(bag.patches.numel() for bag in map(bags.__getitem__, range(5)))
    )
    empty = WholeSlides([], [], stores, chunk_size=7)
    assert empty.largest_bytes == 0


def test_largest_bytes_of_features(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    for name, patches in {"a": 5, "b": 9, "c": 4, "d": 3}.items():
        torch.save(torch.randn(patches, 6), tmp_path / f"features/{name}.pt")
    rows = ["case,slide,label,split", "p,a,0,train", "p,b,0,train", "q,c,1,val", "r,d,1,test"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for most, expected in ((None, 14), (7, 7)):
        data = FeatureDataModule(tmp_path / "features", tmp_path / "labels.csv", num_workers=0, max_patches=most)
        data.setup("fit")
        assert data.random_bags("train").largest_bytes == expected * 6 * 4  # type: ignore[attr-defined]
        assert data.whole_bags("all")[0].largest_bytes == 9 * 6 * 4  # type: ignore[attr-defined]


def test_large_batches_have_fewer_workers(cohort: Path, stores: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = SlideDataModule(
        stores, cohort / "labels.csv", columns={"label": "lesion"}, patches_per_bag=10**6, num_workers=8
    )
    data.setup("fit")
    with caplog.at_level("INFO", logger="e2e_abmilx"):
        loader = data.train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor) == (1, 1)
    assert "1 of 8 workers are used: a batch takes up to 12288 MB" in caplog.text


def test_workers_leave_two_cores_to_training(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recommended_workers() == 1 or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert [recommended_workers(processes) for processes in (1, 2, 8)] == [14, 6, 1]


def test_workers_give_way_to_the_process_that_feeds_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(os, "nice", started.append, raising=False)
    WorkerStart()(0)
    assert started == ([5] if torch.cuda.is_available() else [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    WorkerStart()(0)
    assert started[-1:] == [5]
