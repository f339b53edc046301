"""The layout: imports point downwards, rooms list their files, tests mirror the tree, files and functions are short."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "e2e_abmilx"
CONTRIBUTING = PACKAGE.parent / ".github/CONTRIBUTING.md"

#: Rooms from the bottom up; a file may import only from rooms listed before its own.
FLOORS = {
    "pixels": ["errors", "io", "slides", "store", "cache", "synthetic"],
    "tables": ["cohort", "evaluation", "heatmaps"],
    "models": ["data", "heads", "encoders", "losses", "metrics"],
    "lightning": ["datamodules", "tasks", "training"],
    "people": ["runs", "reports", "viewer", "models", "study", "main", "__main__"],
}
ORDER = [name for names in FLOORS.values() for name in names]
HEAVY = {"torch", "lightning", "torchmetrics", "timm", "torchvision"}


def _module_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Full names of everything that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    own = _module_name(path)
    assert own in ORDER, f"{own} has no floor: add it to FLOORS"
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "e2e_abmilx" and len(parts) > 1 and parts[1] != own:
            assert ORDER.index(parts[1]) < ORDER.index(own), f"{path.name} imports {name}, which is above it"


def _files(name: str) -> list[Path]:
    folder = PACKAGE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]


@pytest.mark.parametrize("name", [*FLOORS["pixels"], *FLOORS["tables"]])
def test_numpy_floors_know_no_torch(name: str) -> None:
    for path in _files(name):
        assert not {module.split(".")[0] for module in _imports(path)} & HEAVY


@pytest.mark.parametrize("name", FLOORS["models"])
def test_modules_know_no_lightning(name: str) -> None:
    for path in _files(name):
        assert not any(module.split(".")[0] == "lightning" for module in _imports(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torchvision_decodes_nothing(path: Path) -> None:
    """Its decoders are announced for removal, and on a GPU they write into memory that is still read."""
    assert not any(name.split(".")[0] == "torchvision" for name in _imports(path))


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        ("from e2e_abmilx import ABMILX", ["lightning", "zarr", "matplotlib", "timm"]),
        ("import e2e_abmilx.cache", ["torch", "lightning", "matplotlib"]),
        ("import e2e_abmilx.viewer", ["torch", "lightning"]),
        ("import e2e_abmilx", ["torch", "numpy"]),
    ],
)
def test_importing_is_cheap(line: str, forbidden: list[str]) -> None:
    code = f"import sys; {line}; print([name for name in {forbidden!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_resolve() -> None:
    import e2e_abmilx

    assert sorted(e2e_abmilx.__all__) == sorted(e2e_abmilx._HOMES)
    for name in e2e_abmilx.__all__:
        assert getattr(e2e_abmilx, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = e2e_abmilx.Nothing


def test_contributing_shows_the_rooms_in_order() -> None:
    block = re.search(r"```text\ne2e_abmilx/\n(.*?)```", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL)
    assert block, "CONTRIBUTING.md has no tree"
    shown = re.findall(r"^[├└]── (\S+)", block.group(1), re.MULTILINE)
    assert [name.removesuffix(".py").removesuffix("/") for name in shown] == ORDER
    there = {path.stem for path in PACKAGE.iterdir() if path.name[0] not in "._" or path.name == "__main__.py"}
    assert there - {"py"} == set(ORDER)
    assert len(there) <= 25  # 25: study, what comes before a run


FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE)))
def test_rooms_list_their_files(folder: Path) -> None:
    contents = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    there = {path.stem for path in folder.glob("[!_]*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    assert sorted(name for name in there if f"``{name}" not in contents) == []


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name[0] != "_"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_tests_mirror_the_tree(path: Path) -> None:
    twin = TESTS / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
    assert twin.is_file(), f"{path.relative_to(PACKAGE)} has no {twin.relative_to(TESTS)}"
    assert "def test_" in twin.read_text(encoding="utf-8")


def _imports_when_loaded(path: Path) -> set[str]:
    """Full names of the modules that a file imports at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}


def test_files_of_a_room_do_not_import_each_other_in_circles() -> None:
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    graph = {name: _imports_when_loaded(path) & names.keys() for name, path in names.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_files_and_functions_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert [str(path) for path, length in lengths.items() if length > 300] == []
    functions = [
        node.end_lineno - node.lineno + 1
        for path in lengths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    assert sum(length <= 25 for length in functions) / len(functions) >= 0.9
