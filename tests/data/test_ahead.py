"""Reading ahead changes when bags are read, never which, nor their order."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.data import ahead
from e2e_abmilx.data.ahead import Batch, LookAhead, ReadAhead


@given(st.integers(0, 20), st.integers(0, 4))
def test_batches_stay_and_name_those_that_the_same_worker_reads_next(count: int, workers: int) -> None:
    batches = [[2 * number, 2 * number + 1] for number in range(count)]
    looked = LookAhead(batches, workers)
    assert len(looked) == count
    found = list(looked)
    assert found == batches
    step = max(workers, 1)
    for number, batch in enumerate(found):
        following = [batches[place] for place in range(number + step, count, step)][: ahead.DEPTH]
        assert list(batch.upcoming) == [index for one in following for index in one]


def test_upcoming_items_are_read_meanwhile_and_only_once() -> None:
    read, began = [], threading.Event()

    def item(index: int) -> int:
        read.append(index)
        if index == 1:
            began.set()
        time.sleep(0.01)
        return 10 * index

    reader = ReadAhead(item)
    batches = list(LookAhead([[0], [1], [2], [3]], 1))
    assert reader.take(batches[0]) == [0]
    assert began.wait(5)
    assert [reader.take(batch)[0] for batch in batches[1:]] == [10, 20, 30]
    assert sorted(read) == [0, 1, 2, 3]
    assert not reader._items


def test_an_error_comes_when_its_item_is_due() -> None:
    reader = ReadAhead(lambda index: 1 // index)
    batches = list(LookAhead([[1], [0], [2]], 1))
    assert reader.take(batches[0]) == [1]
    with pytest.raises(ZeroDivisionError):
        reader.take(batches[1])
    assert reader.take(batches[2]) == [0]


def test_a_pass_that_was_left_early_leaves_nothing() -> None:
    reader = ReadAhead(lambda index: index)
    reader.take(next(iter(LookAhead([[0], [1], [2]], 1))))
    assert reader.take(Batch([7, 7])) == [7, 7]
    assert not reader._items
