"""One store in a bucket: its order is that of the seed, and it is sent once, whoever sends it."""

from pathlib import Path

import numpy as np
import pytest
from local_bucket import FaultProxy

from e2e_abmilx.cache.sending import PUSHED_FROM, fingerprint, push_store, shuffled
from e2e_abmilx.store import PatchStore, StoreError, StoreFacts, write_store
from e2e_abmilx.store.locations import ObjectUrl

TO = ObjectUrl("s3://cohorts/sent")


def make(folder: Path, value: int = 0) -> PatchStore:
    patches = np.full((9, 8, 8, 3), value, np.uint8)
    return write_store(folder / "s.zarr", {0.5: (patches, np.arange(18).reshape(9, 2))})


def test_the_order_is_that_of_seed_slide_and_scale() -> None:
    order = shuffled(0, "s", 0, 50)
    assert sorted(order) == list(range(50))
    assert (order == shuffled(0, "s", 0, 50)).all()
    for other in ((1, "s", 0), (0, "t", 0), (0, "s", 1)):
        assert (order != shuffled(*other, 50)).any()


def test_the_facts_of_a_sent_store_are_those_of_the_store_in_the_bucket(bucket: FaultProxy, tmp_path: Path) -> None:
    store = make(tmp_path)
    facts = push_store(tmp_path, TO, "s", 4)
    assert facts == StoreFacts.of(PatchStore(TO / "s.zarr"))
    assert facts.attributes[PUSHED_FROM] == fingerprint(store, 4)
    bucket.requests.clear()
    assert push_store(tmp_path, TO, "s", 4) == facts
    assert [request.method for request in bucket.requests] == ["GET"]


def test_zarr_json_is_written_last(bucket: FaultProxy, tmp_path: Path) -> None:
    make(tmp_path)
    push_store(tmp_path, TO, "s", 0)
    written = [request.path for request in bucket.requests if request.method != "GET"]
    assert written[-1] == "/cohorts/sent/s.zarr/zarr.json"
    assert len(written) == len(set(written))


def test_another_store_is_refused(bucket: FaultProxy, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        make(tmp_path / str(number), 90 * number)
    push_store(tmp_path / "0", TO, "s", 0)
    with pytest.raises(StoreError, match=r"is another store than .*; delete it there first"):
        push_store(tmp_path / "1", TO, "s", 0)
