"""The summary of a store comes back as it was packed, and damage is detected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.store import StoreError, summary
from e2e_abmilx.store.format import with_crc
from e2e_abmilx.store.summary import Summary, pack_summary, parse_summary


def some(counts: list[int]) -> Summary:
    rng = np.random.default_rng(len(counts))
    coords = [rng.integers(-(2**62), 2**62, size=(count, 2)) for count in counts]
    lengths = [rng.integers(0, 2**32, size=count).astype(np.uint32) for count in counts]
    return Summary(b'{"a": 1}', coords, lengths)


@given(st.lists(st.integers(0, 50), max_size=4))
def test_a_summary_comes_back(counts: list[int]) -> None:
    whole = some(counts)
    found = parse_summary(pack_summary(whole), "here")
    assert found is not None
    assert found.metadata == whole.metadata
    for ours, theirs in ((whole.coords, found.coords), (whole.lengths, found.lengths)):
        assert len(ours) == len(theirs)
        assert all((a == b).all() and a.shape == b.shape for a, b in zip(ours, theirs, strict=True))


@given(st.data())
def test_a_flipped_bit_is_detected(data: st.DataObject) -> None:
    packed = bytearray(pack_summary(some([3, 9])))
    bit = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreError, match="here is damaged"):
        parse_summary(bytes(packed), "here")


def test_a_later_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_VERSION", 2)
    packed = pack_summary(some([1]))
    monkeypatch.undo()
    assert parse_summary(packed, "here") is None


def test_a_summary_is_small() -> None:
    """A slide of 20,000 patches, about 700 MB, in random order: its summary takes less than a tenth of a bag of 512."""
    order = np.random.default_rng(0).permutation(20_000)
    coords = np.stack([order % 200 * 512, order // 200 * 512], axis=1)
    lengths = np.random.default_rng(1).normal(33_000, 6_000, 20_000).astype(np.uint32)
    assert len(pack_summary(Summary(b"{}" * 3000, [coords], [lengths]))) < 0.01 * 512 * 33_000
    assert with_crc(b"")  # the checksum of nothing is of four bytes, too
