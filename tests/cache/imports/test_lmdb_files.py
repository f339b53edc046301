"""Databases of the authors: hostile pickles run nothing, and damaged databases are refused."""

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import jpeg, write_lmdb
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e_abmilx.cache.imports import import_lmdb, lmdb_files
from e2e_abmilx.errors import SourceError


class Runs:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def hostile(marker: Path) -> dict[str, bytes]:
    run = Runs(f"touch {marker}")
    return {
        "reduce": pickle.dumps(run),
        "reduce, protocol 0": pickle.dumps(run, 0),
        "inside a list": pickle.dumps([b"", {"a": run}]),
        "before bytes": pickle.dumps(run)[:-1] + b"0" + pickle.dumps(jpeg(0))[2:],
        "a module is imported": b"cantigravity\nfly\n.",
        "persistent": b"Pid\n.",
        "extension": b"\x82\x01.",
        "deep nesting": b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".",
        "deep tuple as a key": b"\x80\x04}" + b")" + b"\x85" * 300_000 + b"K\x01s.",
        "huge memo": b"\x80\x04C\x01xr\xff\xff\xff\xff.",
        "huge bytes": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.",
        "huge frame": b"\x80\x04\x95" + (2**63 - 1).to_bytes(8, "little") + b"C\x01x.",
        "huge int": b"\x80\x04\x8b\xff\xff\xff\x7f" + b"\x01" * 1000 + b".",
        "truncated": pickle.dumps(jpeg(0))[:-40],
        "no pickle": b"\xff\xd8\xff\xe0 a bare JPEG",
        "nothing on the stack": b"\x80\x04.",
        "float": pickle.dumps(1.5),
        "tuple": pickle.dumps((b"x",)),
        "none": pickle.dumps(None),
        "array": pickle.dumps(np.frombuffer(jpeg(0), np.uint8)),
        "unhashable key": b"\x80\x04}]K\x01s.",
        "16 MB": pickle.dumps(bytes(2**24)),
    }


HOSTILE = tuple(hostile(Path()))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_reported_and_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it ran"
    value = hostile(tmp_path / "it\\ ran")[name]
    slides = {"bad": [jpeg(0)], "good": [jpeg(1)]}
    bad, good = import_lmdb(write_lmdb(tmp_path / "patch.lmdb", slides, {"bad-0": value}), tmp_path / "out", workers=1)
    assert good.status == "done"
    assert bad.status == "failed"
    assert "patch.lmdb has a" in bad.reason
    assert "bad-0" in bad.reason
    table = write_lmdb(tmp_path / "table.lmdb", slides, {"__pn__": value})
    with pytest.raises(SourceError, match=r"table\.lmdb has a .*__pn__"):
        import_lmdb(table, tmp_path / "out2", workers=1)
    assert not marker.exists()


def test_the_hostile_pickles_do_run_code_if_unpickled(tmp_path: Path) -> None:
    pickle.loads(hostile(tmp_path / "it\\ ran")["reduce"])
    assert (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    "counts", [{"a": -1}, {"a": 10**12}, {"a": "1"}, {1: 1}, ["a"], {"a": [1]}, {"a": 1, "b": 10**30}]
)
def test_a_wrong_table_of_slides_is_refused(tmp_path: Path, counts: object) -> None:
    path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0)]}, {"__pn__": pickle.dumps(counts)})
    with pytest.raises(SourceError, match="__pn__"):
        import_lmdb(path, tmp_path / "out", workers=1)


def test_an_interrupted_database_is_refused(tmp_path: Path) -> None:
    meta = dict.fromkeys(("__keys__", "__len__", "__slide__", "__pn__"), b"")
    path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0)]}, meta)
    with pytest.raises(SourceError, match="writing was interrupted; run"):
        import_lmdb(path, tmp_path / "out")


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_database_is_refused(tmp_path: Path, fraction: float) -> None:
    path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(i, side=256) for i in range(20)]})
    os.truncate(path, int(fraction * path.stat().st_size))
    with pytest.raises(SourceError, match=r"one\.lmdb (cannot be read as an LMDB|is truncated)"):
        import_lmdb(path, tmp_path / "out", workers=1)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.lmdb").write_text("text" * 5000)
    for name in ("text.lmdb", "absent.lmdb", "."):
        with pytest.raises(SourceError, match="cannot be read as an LMDB"):
            import_lmdb(tmp_path / name, tmp_path / "out")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(SourceError, match=r"pip install e2e-abmilx\[lmdb\]"):
        import_lmdb(tmp_path / "one.lmdb", tmp_path / "out")


PLAIN = st.recursive(
    st.binary(max_size=300) | st.text(max_size=300) | st.integers(-(2**1000), 2**1000),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text() | st.integers(), inner, max_size=8),
)


@given(value=PLAIN, protocol=st.integers(3, pickle.HIGHEST_PROTOCOL))
@settings(deadline=None, max_examples=80)
def test_plain_values_are_unpickled(value: object, protocol: int) -> None:
    assert lmdb_files._unpickle(memoryview(pickle.dumps(value, protocol))) == value


@given(value=PLAIN, data=st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_pickles_give_plain_values_or_an_error(value: object, data: st.DataObject) -> None:
    pickled = bytearray(pickle.dumps(value))
    for _ in range(data.draw(st.integers(1, 4))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = lmdb_files._unpickle(memoryview(bytes(pickled)))
    except Exception:  # noqa: BLE001 - the caller turns any error into a SourceError
        return
    assert {type(part) for part in parts(found)} <= {bytes, str, int, list, dict}


def parts(value: object) -> Iterator[object]:
    """Yield a value and everything that it contains, each object once."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, list):
            todo += part
        elif isinstance(part, dict):
            todo += [*part, *part.values()]
