"""The pages in docs/: their snippets run, their options and links exist, and the site builds without a warning."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from docs_snippets import ROOT, Snippet, fit, prepare, run, snippets_of, words_of

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GENERATED = {"commands", "fit", "classes", "configs", "store_format", "changelog"}  # pages in docs/reference
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))


def _load_options() -> ModuleType:
    sys.path.insert(0, str(DOCS / "generate"))
    try:
        import options
    finally:
        sys.path.pop(0)
    return options


@pytest.fixture(scope="module")
def options() -> ModuleType:
    pytest.importorskip("griffe", reason="griffe is not installed (pip install .[docs])")
    return _load_options()


@pytest.fixture(scope="module")
def material(cohort: Path, stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the slides, labels and patches that the pages name."""
    folder = tmp_path_factory.mktemp("material")
    prepare(folder, cohort, stores)
    return folder


@pytest.fixture(scope="module")
def study(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a trained model in ``runs/mine``."""
    folder = shutil.copytree(material, tmp_path_factory.mktemp("study") / "study", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit(folder)
    return folder


@contextmanager
def _copy_of(folder: Path, parent: Path) -> Iterator[None]:
    """Work in a copy of a folder, from which modules can be imported."""
    copy = shutil.copytree(folder, parent / "study", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        patch.syspath_prepend(copy)
        yield
    sys.modules.pop("my_lab", None)


def _is_quick(snippet: Snippet) -> bool:
    is_python = snippet.language == "python" and not snippet.mark
    return is_python and "runs/mine" not in snippet.text and "cache_slides(" not in snippet.text


WITH_SNIPPETS = [page for page in PAGES if snippets_of(page)]
QUICK = [page for page in WITH_SNIPPETS if any(map(_is_quick, snippets_of(page)))]
by_page = {"ids": lambda page: str(page.relative_to(DOCS))}


@pytest.mark.parametrize("page", QUICK, **by_page)
def test_python_snippets_run(page: Path, material: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    with _copy_of(material, tmp_path):
        for snippet in filter(_is_quick, snippets_of(page)):
            run(snippet, names)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SNIPPETS, **by_page)
def test_all_snippets_run(page: Path, study: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    with _copy_of(study, tmp_path):
        for snippet in snippets_of(page):
            if not snippet.mark.startswith("not run:"):
                run(snippet, names)


@each_page
def test_a_snippet_that_is_not_run_says_why(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    snippets = snippets_of(page)
    assert len(snippets) == len(re.findall(r"^ *```(?:python|bash)", text, re.MULTILINE)), (
        "an indented snippet is not run"
    )
    for snippet in snippets:
        assert re.fullmatch(r"|not run: .{15,}", snippet.mark), snippet.mark
    assert len(re.findall("<!--", text)) == sum(bool(snippet.mark) for snippet in snippets), "a mark stands alone"


@pytest.fixture(scope="module")
def accepted(options: ModuleType) -> set[str]:
    """Options that a parser accepts; those of other programs; and those of ``init`` and ``plan`` until they exist."""
    names: set[str] = options.known_names() | {
        "nproc_per_node",
        "ntasks-per-node",
        "nodes",
        "kill-on-bad-exit",
        "requeue",
    }
    return names | (set() if "init" in options.commands() else {"gpu_memory", "probe", "weights", "pretrained"})


@each_page
def test_options_exist(page: Path, accepted: set[str]) -> None:
    """Options in the text, and all options of commands that are not run, are accepted by a parser."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    words = [word for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) for word in code.split()]
    named = [word.lstrip("-").rstrip(":,").split("=")[0] for word in words if _is_option(word)]
    named += [word[2:].split("=")[0] for command in words_of(snippets_of(page)) for word in command if word[:2] == "--"]
    assert {name for name in named if name.replace("dry-run", "dry_run") not in accepted} == set()


def _is_option(word: str) -> bool:
    groups = r"(model|data|trainer|checkpoint|last_checkpoint)\.[a-z_]+(\.[a-z_]+)*"
    return bool(re.fullmatch(rf"--[a-z][\w.+=-]*|{groups}[:,]?", word)) and not word.endswith((".json", ".safetensors"))


@each_page
def test_commands_exist(page: Path, options: ModuleType) -> None:
    """Commands of snippets exist; ``init`` and ``plan`` are on their way."""
    assert {command[0] for command in words_of(snippets_of(page))} <= options.commands() | {"init", "plan"}


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    """Links to pages lead to files, and so do paths of this repository in the text."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+\.md)(?:#[\w-]+)?\)", text):
        generated = (page.parent / target).resolve().parent == DOCS / "reference" and Path(target).stem in GENERATED
        assert generated or (page.parent / target).is_file(), target
    paths = re.findall(r"`((?:tests|benchmarks|configs|notebooks|docs)/[\w/.]+\.\w+)`", text)
    paths += [
        f"e2e_abmilx/{path}"
        for path in re.findall(r"`([a-z]+/(?:[a-z_]+/)*[a-z_0-9]+\.py)`", text)
        if "tests" not in path
    ]
    rooms = {path.name for path in (ROOT / "e2e_abmilx").iterdir()}
    for path in paths:
        first, second = Path(path).parts[:2]
        assert (first == "e2e_abmilx" and second not in rooms) or (ROOT / path).exists(), path


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed (pip install .[docs])")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, f"{shlex.join(command)}\n{built.stderr}"
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 40
    for path, content in pages.items():
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(https?://[^\s\">]+)", content)
        assert loaded == [], path
        assert 'arithmatex">\\' not in content, f"{path}: an equation is not MathML"
    assert "<math" in pages[tmp_path / "site/explanation/method.html"]
