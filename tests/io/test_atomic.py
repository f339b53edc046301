"""A file is complete or absent."""

from pathlib import Path

import pytest

from e2e_abmilx.io.atomic import atomic_write, remove_partials


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as partial:
        partial.write_text("complete")
        assert not path.exists()
    assert path.read_text() == "complete"
    assert [found.name for found in path.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("earlier")

    def fail_midway() -> None:
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_midway()
    assert path.read_text() == "earlier"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("[a].csv", ".b.csv.host-1.partial", ".[a].csv.lock")]
    left = [tmp_path / f".[a].csv.host-{number}.partial" for number in (1, 2)]
    for path in (*kept, *left):
        path.touch()
    remove_partials(tmp_path / "[a].csv")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
