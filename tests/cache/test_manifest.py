"""The manifest keeps one row per slide, whoever writes it."""

import subprocess
import sys
from pathlib import Path

from e2e_abmilx.cache.manifest import CachedSlide, read_manifest, update_manifest

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
