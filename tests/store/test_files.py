"""The files of a store in a bucket: opened by few requests, once per process; damage and absence are named."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from buckets import PREFIX, upload
from local_bucket import FaultProxy
from small_stores import COUNTS, files

from e2e_abmilx.store import PatchStore, StoreError, objects
from e2e_abmilx.store import files as store_files
from e2e_abmilx.store.summary import SUMMARY, Summary, pack_summary


def summary_of(store: PatchStore) -> bytes:
    """Return the summary of a store whose patches follow one another."""
    lengths = [
        [len(jpeg) + 4 for jpeg in store.read_encoded(range(count), scale)] for scale, count in enumerate(COUNTS)
    ]
    coords = [store.coords(scale) for scale in range(len(COUNTS))]
    metadata = (store.path / "zarr.json").read_bytes()
    return pack_summary(Summary(metadata, coords, [np.array(one, "u4") for one in lengths]))


@pytest.mark.parametrize("with_summary", [False, True])
def test_a_store_in_a_bucket_is_the_same(bucket: FaultProxy, store: PatchStore, with_summary: bool) -> None:
    url = upload(store.path)
    if with_summary:
        objects.put(PREFIX, f"{store.path.name}/{SUMMARY}", summary_of(store))
    bucket.requests.clear()
    found = PatchStore(url)
    assert (found.name, found.patch_size, found.attributes) == (store.name, store.patch_size, store.attributes)
    for scale, count in enumerate(COUNTS):
        wanted = [*range(count)][::-1] * 2
        assert (found.read(wanted, scale) == store.read(wanted, scale)).all()
        assert found.read_encoded(wanted, scale) == store.read_encoded(wanted, scale)
        assert (found.coords(scale) == store.coords(scale)).all()
    reads, opening = 2 * 4, 1 if with_summary else 1 + 1 + 4 + 2  # the summary; or it, zarr.json, indexes and coords
    assert len(bucket.gets()) == reads + opening
    assert (found.thumbnail() == store.thumbnail()).all()
    assert (found.tissue() == store.tissue()).all()
    assert list(found.verify()) == []
    assert str(found.path) == url
    assert repr(found).startswith(f"PatchStore('{url}'")


def test_a_store_is_opened_once_per_process(bucket: FaultProxy, path: Path) -> None:
    url = upload(path)
    PatchStore(url).read([0, 1])
    bucket.requests.clear()
    pickled = pickle.dumps(PatchStore(url))
    assert len(pickled) < 500
    assert len(pickle.loads(pickled).read([0, 1])) == 2
    assert len(bucket.gets()) == 1  # of the two patches
    store_files.forget_objects()
    PatchStore(url)
    assert len(bucket.gets()) > 1


def test_coords_may_be_changed_by_whoever_asked(bucket: FaultProxy, path: Path) -> None:
    store = PatchStore(upload(path))
    before = store.coords()
    store.coords()[:] = 0
    assert (store.coords() == before).all()


def test_a_summary_damaged_in_transit_is_read_again(bucket: FaultProxy, store: PatchStore) -> None:
    url = upload(store.path)
    objects.put(PREFIX, f"{store.path.name}/{SUMMARY}", summary_of(store))
    numbers = iter(range(1000))
    bucket.fault = lambda method, path: "flip" if next(numbers) == 0 else None
    assert (PatchStore(url).read([3]) == store.read([3])).all()
    bucket.fault = lambda method, path: "flip" if path.endswith(SUMMARY) else None
    store_files.forget_objects()
    with pytest.raises(StoreError, match=f"{SUMMARY} is damaged"):
        PatchStore(url)


def test_where_reading_what_is_missing_is_forbidden_a_store_without_summary_opens(
    bucket: FaultProxy, store: PatchStore
) -> None:
    url = upload(store.path)
    bucket.fault = lambda method, path: "denied" if path.endswith(SUMMARY) else None
    assert PatchStore(url).num_patches() == COUNTS[0]


def test_a_missing_store_is_named(bucket: FaultProxy) -> None:
    with pytest.raises(StoreError, match=r"no patch store at s3://cohorts/gone\.zarr; .*e2e-abmilx push"):
        PatchStore("s3://cohorts/gone.zarr")


def test_every_emptied_object_is_named(bucket: FaultProxy, path: Path) -> None:
    url = upload(path)
    for name, content in files(path).items():
        objects.put(PREFIX, f"{path.name}/{name}", b"")
        store_files.forget_objects()
        try:
            found = list(PatchStore(url).verify())
        except StoreError as error:
            found = [str(error)]
        assert found, name
        objects.put(PREFIX, f"{path.name}/{name}", content)
    store_files.forget_objects()
    assert list(PatchStore(url).verify()) == []


def test_plain_http_is_read_too(bucket: FaultProxy, store: PatchStore) -> None:
    upload(store.path)
    found = PatchStore(f"{bucket.url}/cohorts/a cohort/{store.path.name}")
    assert (found.read([3, 9]) == store.read([3, 9])).all()


def test_a_file_url_is_a_local_store(store: PatchStore) -> None:
    assert PatchStore(store.path.as_uri()).path == store.path
