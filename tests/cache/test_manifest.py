"""The manifest keeps the last row of each slide, whoever writes it and whenever they are killed."""

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_bucket import FaultProxy

from e2e_abmilx.cache.manifest import (
    MANIFEST,
    CachedSlide,
    add_to_manifest,
    compact_manifest,
    read_manifest,
    update_manifest,
)
from e2e_abmilx.store.locations import ObjectUrl

WRITER = """
import sys
from pathlib import Path
from e2e_abmilx.cache.manifest import CachedSlide, update_manifest
for number in range(20):
    update_manifest(Path(sys.argv[1]), [CachedSlide(f"{sys.argv[2]}-{number:02d}", "done", mpp=0.5)])
"""


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    rows = [
        CachedSlide("b", "failed", 'no "µm/px", nowhere\nat all'),
        CachedSlide(
            "a",
            "done",
            mpp=0.25,
            mpp_source="assumed",
            patches="7;2",
            unreadable=1,
            bytes=5,
            seconds=0.5,
            path="/a, b/a.svs",
        ),
    ]
    update_manifest(tmp_path, rows)
    assert read_manifest(tmp_path) == {"a": rows[1], "b": rows[0]}
    assert rows[1].num_patches == 9
    assert rows[0].num_patches == 0


def test_new_rows_replace_old_ones_of_the_same_slide(tmp_path: Path) -> None:
    update_manifest(tmp_path, [CachedSlide("a", "failed", "why"), CachedSlide("b", "done")])
    update_manifest(tmp_path, [CachedSlide("a", "done")])
    assert {name: row.status for name, row in read_manifest(tmp_path).items()} == {"a": "done", "b": "done"}
    assert read_manifest(tmp_path / "absent") == {}


def test_manifests_of_earlier_releases_are_read_and_extended(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("slide,status,mpp,seconds\na,done,0.25,0.5\n")
    assert read_manifest(tmp_path) == {"a": CachedSlide("a", "done", mpp=0.25, seconds=0.5)}
    update_manifest(tmp_path, [CachedSlide("b", "done", path="/slides/b.svs")])
    assert {name: row.path for name, row in read_manifest(tmp_path).items()} == {"a": "", "b": "/slides/b.svs"}


def test_processes_that_write_together_lose_no_row(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "xyz"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert sorted(read_manifest(tmp_path)) == [f"{name}-{number:02d}" for name in "xyz" for number in range(20)]


def _rows_in_file(folder: Path) -> int:
    with open(folder / MANIFEST, newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.reader(file)) - 1


def test_rows_are_appended_and_compacted(tmp_path: Path) -> None:
    for status in ("failed", "done"):
        for slide in "cab":
            update_manifest(tmp_path, [CachedSlide(slide, status)])
    update_manifest(tmp_path, [])
    before = read_manifest(tmp_path)
    assert (_rows_in_file(tmp_path), {row.status for row in before.values()}) == (6, {"done"})
    compact_manifest(tmp_path)
    assert (_rows_in_file(tmp_path), read_manifest(tmp_path), list(read_manifest(tmp_path))) == (
        3,
        before,
        ["a", "b", "c"],
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == [MANIFEST]


def test_compacting_nothing_makes_nothing(tmp_path: Path) -> None:
    compact_manifest(tmp_path)
    assert not list(tmp_path.iterdir())


cells = st.text(st.sampled_from('ab",;\n\r \xb5\u4e2d'), max_size=12)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5), st.data())
def test_a_row_that_was_torn_anywhere_is_ignored_and_repaired(
    tmp_path_factory: pytest.TempPathFactory, given_rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    rows = [CachedSlide(f"{k}{name}".replace("\r", ""), "failed", why) for k, (name, why) in enumerate(given_rows)]
    sizes = [0]
    for row in rows:
        update_manifest(folder, [row])
        sizes.append((folder / MANIFEST).stat().st_size)
    kept = {row.slide: row._replace(reason=_one_line_feed(row.reason)) for row in rows}
    assert read_manifest(folder) == kept
    cut = data.draw(st.integers(0, sizes[-1]))
    os.truncate(folder / MANIFEST, cut)
    whole = dict(list(kept.items())[: sum(size <= cut for size in sizes[1:])])
    assert read_manifest(folder) == whole
    update_manifest(folder, [CachedSlide("next", "done")])
    assert read_manifest(folder) == {**whole, "next": CachedSlide("next", "done")}


def _one_line_feed(text: str) -> str:
    """Return text as it is stored: no cell has the end of a row in it."""
    while "\r\n" in text:
        text = text.replace("\r\n", "\n")
    return text


def _old_file(folder: Path, end: str = "\r\n") -> None:
    """Write a manifest as the release 1.0 did, which had fewer columns."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator=end)
    table.writerow(["slide", "status", "reason", "patches", "seconds"])
    table.writerows([["a", "done", "", "7;2", 1.5], ["b", "failed", 'no "\u00b5m"\nat all', "", ""]])
    (folder / MANIFEST).write_bytes(text.getvalue().encode())


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_files_of_earlier_releases_and_editors_are_read_and_added_to(tmp_path: Path, end: str) -> None:
    _old_file(tmp_path, end)
    old = {
        "a": CachedSlide("a", "done", patches="7;2", seconds=1.5),
        "b": CachedSlide("b", "failed", 'no "\u00b5m"\nat all'),
    }
    assert read_manifest(tmp_path) == old
    update_manifest(tmp_path, [CachedSlide("c", "done", path="/slides/c.svs")])
    update_manifest(tmp_path, [CachedSlide("b", "done")])
    assert read_manifest(tmp_path) == {
        "a": old["a"],
        "b": CachedSlide("b", "done"),
        "c": CachedSlide("c", "done", path="/slides/c.svs"),
    }


def test_a_row_added_by_an_editor_is_kept(tmp_path: Path) -> None:
    update_manifest(tmp_path, [CachedSlide("a", "done")])
    with open(tmp_path / MANIFEST, "a", encoding="utf-8") as file:
        file.write("b,failed,bad focus" + "," * (len(CachedSlide._fields) - 3) + "\n")
    update_manifest(tmp_path, [CachedSlide("c", "done")])
    assert {name: row.status for name, row in read_manifest(tmp_path).items()} == {
        "a": "done",
        "b": "failed",
        "c": "done",
    }


def test_somebody_elses_file_is_replaced(tmp_path: Path) -> None:
    """In a folder that a group shares; the superuser may write to any file, so this is only seen by others."""
    update_manifest(tmp_path, [CachedSlide("a", "done")])
    (tmp_path / MANIFEST).chmod(0o444)
    update_manifest(tmp_path, [CachedSlide("b", "done")])
    assert sorted(read_manifest(tmp_path)) == ["a", "b"]


KILLED = """
import itertools, sys
from pathlib import Path
from e2e_abmilx.cache.manifest import CachedSlide, compact_manifest, update_manifest
print("ready", flush=True)
for number in itertools.count():
    update_manifest(Path(sys.argv[1]), [CachedSlide(f"{sys.argv[2]}-{number}", "done", "x" * 3000)])
    if number % 7 == 6:
        compact_manifest(Path(sys.argv[1]))
    print(number, flush=True)
"""


def test_killed_writers_lose_nothing_that_they_had_written(tmp_path: Path) -> None:
    rng = random.Random(0)
    written: set[str] = set()
    for kill in range(2):
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", KILLED, str(tmp_path), f"{kill}{name}"], stdout=subprocess.PIPE, text=True
            )
            for name in "xy"
        ]
        for process in pair:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.05, 0.3))
        for name, process in zip("xy", pair, strict=True):
            process.send_signal(signal.SIGKILL)
            lines = process.communicate()[0].splitlines()
            written |= {f"{kill}{name}-{number}" for number in lines if number.isdigit()}
    found = read_manifest(tmp_path)
    assert written <= set(found)
    assert {(row.status, len(row.reason)) for row in found.values()} == {("done", 3000)}
    compact_manifest(tmp_path)
    assert read_manifest(tmp_path) == found


def test_a_manifest_in_a_bucket_keeps_the_rows_of_all(bucket: FaultProxy) -> None:
    to = ObjectUrl("s3://cohorts/x")
    assert read_manifest(to) == {}
    add_to_manifest(to, [CachedSlide("b", "failed", 'it says "é"\nand more'), CachedSlide("a", "done", mpp=0.5)])
    add_to_manifest(to, [CachedSlide("b", "done", patches="3")])
    assert list(read_manifest(to).values()) == [
        CachedSlide("a", "done", mpp=0.5),
        CachedSlide("b", "done", patches="3"),
    ]


@pytest.mark.parametrize("turn", range(4))
def test_damage_in_transit_does_not_get_into_a_manifest_in_a_bucket(bucket: FaultProxy, turn: int) -> None:
    to = ObjectUrl("s3://cohorts/x")
    rows = {f"slide-{number}": CachedSlide(f"slide-{number}", "failed", "x" * 50) for number in range(9)}
    add_to_manifest(to, rows.values())
    asked = iter(range(100))
    bucket.fault = lambda method, path: "flip" if method == "GET" and next(asked) == turn else None
    add_to_manifest(to, [])
    assert read_manifest(to) == rows
