"""Patches in a bucket: few requests, no byte too many, and under faults either the right patch or a named error."""

import random
from pathlib import Path

import numpy as np
import pytest
from buckets import PREFIX, upload
from hypothesis import given
from hypothesis import strategies as st
from local_bucket import FAULTS, FaultProxy
from small_stores import COUNTS

from e2e_abmilx.store import PatchStore, StoreError, object_scale, objects
from e2e_abmilx.store.files import forget_objects
from e2e_abmilx.store.object_scale import merge
from e2e_abmilx.store.objects import Range


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30))), st.integers(1, 8))
def test_merged_ranges_cover_all_and_nothing_else(chunks: list[tuple[str, int]], most: int) -> None:
    ranges = sorted({Range(name, 10 * start, 10 * start + 10) for name, start in chunks})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_scale, "LARGEST_GET", 10 * most)
        merged, of = merge(ranges)
    assert sum(one.stop - one.start for one in merged) == 10 * len(ranges)
    assert all(one.stop - one.start <= 10 * most for one in merged)
    for one in ranges:
        whole = merged[of[one]]
        assert whole.name == one.name
        assert whole.start <= one.start < one.stop <= whole.stop


def test_neighbours_are_one_request_and_nothing_more_is_fetched(bucket: FaultProxy, path: Path) -> None:
    store = PatchStore(upload(path))
    store.read(range(COUNTS[0]))
    bucket.requests.clear()
    jpegs = store.read_encoded([9, 8, 10, 3, 4, 17, 3])  # in shards of seven: 3 to 4, 8 to 10, and 17
    assert len(bucket.gets()) == 3
    assert sum(request.sent for request in bucket.gets()) == sum(len(jpeg) + 4 for jpeg in jpegs[:-1])


def test_a_patch_damaged_in_transit_is_asked_for_again(bucket: FaultProxy, store: PatchStore) -> None:
    found = PatchStore(upload(store.path))
    found.read([0])
    bucket.requests.clear()
    bucket.fault = lambda method, path: "flip" if not bucket.requests else None
    assert (found.read([0, 1, 2, 3]) == store.read([0, 1, 2, 3])).all()
    assert len(bucket.gets()) == 2
    assert bucket.gets()[1].sent < bucket.gets()[0].sent / 2


def test_a_patch_that_stays_damaged_is_named(bucket: FaultProxy, path: Path) -> None:
    url = upload(path)
    shard = path / "0/patches/c.1.0.0.0"
    content = bytearray(shard.read_bytes())
    content[content.index(b"\xff\xd8", 1) + 300] ^= 4  # in the second patch of the second shard of seven
    objects.put(PREFIX, f"{path.name}/0/patches/c.1.0.0.0", bytes(content))
    with pytest.raises(StoreError, match=r"s3://.*\.zarr, scale 0, patch 8 is damaged: .*asked for twice"):
        PatchStore(url).read([7, 8])
    assert len(PatchStore(url).read([7, 9])) == 2
    (problem,) = PatchStore(url).verify()
    assert "patch 8 is damaged" in problem


def test_a_store_replaced_meanwhile_is_not_read_wrongly(bucket: FaultProxy, store: PatchStore, tmp_path: Path) -> None:
    found = PatchStore(upload(store.path))
    found.read(range(20))
    other = PatchStore(store.path).read_encoded([3])[0]
    objects.put(PREFIX, f"{store.path.name}/0/patches/c.0.0.0.0", other * 10)
    with pytest.raises(StoreError, match="patch 0 is damaged"):
        found.read([0])
    upload(store.path)
    assert (PatchStore(found.path).read([0]) == store.read([0])).all()


@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_faults_give_the_right_patch_or_an_error(
    bucket: FaultProxy, store: PatchStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Faults of every kind in a third of all requests, 50 of them in each of four runs: no patch is ever wrong."""
    url, rng, faults = upload(store.path), random.Random(seed), []
    monkeypatch.setattr(objects, "READ_TIMEOUT_S", 0.05)
    objects._open_client.cache_clear()
    everything = store.read(range(COUNTS[0]))

    def fault(method: str, path: str) -> str | None:
        if rng.random() < 1 / 3:
            faults.append(rng.choice(FAULTS))
            return faults[-1]
        return None

    bucket.fault, bucket.stall_s = fault, 0.2
    outcomes = []
    while len(faults) < 50:
        wanted = np.array(rng.choices(range(COUNTS[0]), k=5))
        forget_objects()
        try:
            outcomes.append((PatchStore(url).read(wanted) == everything[wanted]).all())
        except StoreError as error:
            outcomes.append(str(url) in str(error))
    assert all(outcomes)
