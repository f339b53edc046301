"""The notebooks are valid, have no outputs, introduce each code cell, and run."""

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
def test_is_valid(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (pip install .[notebooks])")
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))


@each_notebook
def test_has_no_outputs(path: Path) -> None:
    """Outputs become outdated and make changes of a notebook unreadable; CI makes them again."""
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
    resources = {"metadata": {"path": str(tmp_path)}}  # working folder
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()  # seconds per cell
    assert list(tmp_path.iterdir()) == [], "a notebook writes only to its temporary folder"
