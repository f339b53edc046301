"""The notebooks are valid, carry no outputs, say before each cell what it is for, and run."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read_cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_five() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]


@each_notebook
def test_valid(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (pip install .[notebooks])")
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))


@each_notebook
def test_kept_without_outputs(path: Path) -> None:
    """They would go stale and make every change of a notebook unreadable; CI draws them anew."""
    code = [cell for cell in read_cells(path) if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]] == []


@each_notebook
def test_every_code_cell_is_introduced(path: Path) -> None:
    kinds = [cell["cell_type"] for cell in read_cells(path)]
    assert all(before == "markdown" for before, kind in itertools.pairwise(kinds) if kind == "code")


@pytest.mark.slow
@each_notebook
def test_runs(path: Path, tmp_path: Path) -> None:
    reason = "nbclient is not installed (pip install .[notebooks])"
    nbformat, nbclient = (pytest.importorskip(name, reason=reason) for name in ("nbformat", "nbclient"))
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}  # the working folder
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()  # seconds a cell
    assert list(tmp_path.iterdir()) == [], "a notebook writes to its temporary folder only"
