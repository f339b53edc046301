"""The facts of a store are those of the open store, and survive being written; damaged bytes are refused."""

import json
import math
from pathlib import Path

import imagecodecs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_stores import ATTRIBUTES, COUNTS, MPP, P, write_whole

from e2e_abmilx.store import PatchStore, StoreError, StoreFacts
from e2e_abmilx.store.facts import decode_index, encode_index
from e2e_abmilx.store.format import with_crc

names = st.text(st.characters(exclude_characters="/\0", codec=None), min_size=1)
numbers = st.integers(0, 2**63 - 1)
mpps = st.floats(min_value=1e-3, allow_infinity=False) | st.just(math.nan)
facts = st.builds(
    StoreFacts,
    names,
    st.lists(mpps).map(tuple),
    numbers,
    st.lists(numbers).map(tuple),
    st.text(),
    st.dictionaries(st.text(), st.none() | numbers).map(json.dumps),
    st.lists(numbers).map(tuple),
)


def test_facts_are_those_of_the_store(store: PatchStore) -> None:
    found = StoreFacts.of(store, (1, 2, 3, 4))
    assert (found.name, found.patch_size, found.counts, found.stamp) == ("slide 1.0 [HE]", P, COUNTS, (1, 2, 3, 4))
    assert found.scales == store.scales  # NaN too: both hold math.nan itself
    assert found.scales[:2] == MPP[:2]
    assert dict(found.attributes) == ATTRIBUTES == dict(store.attributes)
    metadata = json.loads((Path(store.path) / "zarr.json").read_bytes())
    assert StoreFacts.from_metadata(store.name, metadata) == StoreFacts.of(store)
    with pytest.raises(TypeError):
        found.attributes["more"] = 1  # type: ignore[index]


def test_a_rebuilt_store_has_another_checksum_and_an_equal_one_the_same(store: PatchStore, tmp_path: Path) -> None:
    assert PatchStore(write_whole(tmp_path / "again.zarr")).checksum == store.checksum
    assert len(store.checksum) == 8


@given(st.lists(facts, unique_by=lambda one: one.name))
def test_facts_are_read_as_written(stores: list[StoreFacts]) -> None:
    assert decode_index(encode_index(stores)) == {one.name: one for one in stores}


def test_scales_of_unknown_size_stay_equal(store: PatchStore) -> None:
    one, other = (decode_index(encode_index([StoreFacts.of(store)]))[store.name] for _ in range(2))
    assert one.scales == other.scales == store.scales


@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    whole = encode_index(
        [StoreFacts("a", (0.5,), 16, (3,), "0" * 8, "{}"), StoreFacts("b", (0.5,), 16, (4,), "", "{}")]
    )
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([*whole[:place], whole[place] ^ 1 << data.draw(st.integers(0, 7)), *whole[place + 1 :]])
    for harmed in (flipped, whole[:place]):
        with pytest.raises(StoreError, match=r"cohort index cannot be used: .*; make it again"):
            decode_index(harmed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"index_version":2,"format_version":1,"stores":[]}',
        b'{"index_version":1,"format_version":2,"stores":[]}',
        b'{"index_version":1,"format_version":1,"stores":[["a"]]}',
        b"\xff",
    ],
)
def test_other_versions_and_foreign_content_are_refused(content: bytes) -> None:
    with pytest.raises(StoreError, match="make it again"):
        decode_index(with_crc(bytes(imagecodecs.zstd_encode(content))))
    with pytest.raises(StoreError, match="make it again"):
        decode_index(with_crc(content))  # not compressed
