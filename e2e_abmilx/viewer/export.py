"""A static copy of cases, which opens from ``file://`` without a server: the page, its documents, and pictures."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.near_misses import did_you_mean
from e2e_abmilx.viewer.documents import Document, case_document, run_document
from e2e_abmilx.viewer.routes import STATIC
from e2e_abmilx.viewer.viewed_run import NotFoundError, ViewedRun, as_jpeg

#: The file that lists the cases of a copy, by their numbers; the report of a run links to them.
CASES = "cases.json"

_LONGEST_SIDE = 4096  # pixels of a slide's picture
_QUALITY = 75
_SERVED, _COPIED = 'data-source="server"', 'data-source="files"'


def export_cases(
    run: Path,
    folder: Path,
    *,
    compare: Path | None = None,
    slides: Path | None = None,
    cases: Sequence[str] | None = None,
) -> str:
    """Write a copy of cases, complete or not at all, in place of an earlier one; return what was written, in words.

    Args:
        run: Folder of the run.
        folder: Where to write.
        compare: A second run, whose maps are shown beside those of the first.
        slides: Folder that slide files have been moved to.
        cases: Names of the cases; by default all whose attention is stored.

    Raises:
        InputError: There is no such case, none has stored attention, or the folder holds something else.
    """
    folder = folder.resolve()
    _refuse_others(folder)
    viewed = ViewedRun(run, compare, slides)
    chosen = _numbers(viewed, cases)
    with _in_place_of(folder) as partial:
        _write(viewed, chosen, partial)
    viewed.close()
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return (
        f"{folder / 'index.html'}: {len(chosen)} case{'s' * (len(chosen) != 1)}, {megabytes:.1f} MB,"
        f" {megabytes / len(chosen):.1f} MB per case"
    )


def _refuse_others(folder: Path) -> None:
    """Refuse a folder that holds anything else than an earlier copy, because the new copy takes its place."""
    if not folder.exists():
        return
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    page = folder / "index.html"
    if held and not ({CASES, page.name} <= held and _COPIED in page.read_text(encoding="utf-8", errors="replace")):
        raise InputError(f"{folder} exists and is no earlier copy; name a new or empty folder")
    if others := sorted(held - {CASES, "index.html", "static", "data", "case"}):
        raise InputError(
            f"{folder} holds {others[0]!r} beside an earlier copy, which would be lost; move it away, or name another folder"
        )


@contextmanager
def _in_place_of(folder: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``folder`` if the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as made:
        partial, earlier = Path(made, "new"), Path(made, "earlier")
        partial.mkdir()
        yield partial
        if folder.exists():
            folder.rename(earlier)
        try:
            partial.rename(folder)
        except OSError:
            if earlier.exists():
                earlier.rename(folder)
            raise


def as_script(callback: str, document: Document) -> str:
    """Return a document as a script that passes it to a function; safe inside HTML too, whatever names hold."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f"{callback}({text});\n"


def _numbers(viewed: ViewedRun, names: Sequence[str] | None) -> list[int]:
    """Return the numbers of the chosen cases, most wrong first."""
    if names is None:
        chosen = [n for n, name in enumerate(viewed.names) if any(run.has_map(name) for run in viewed.runs)]
        if not chosen:
            raise InputError(f"nothing to export: {viewed.runs[0].read_map(viewed.names[0])[1]}")
        return chosen
    for name in names:
        if name not in viewed.names:
            meant = did_you_mean(name, viewed.names) or ";"
            raise InputError(
                f"there is no case {name!r}{meant} the run has {len(viewed.names)} cases, see predictions.csv"
            )
    return sorted({viewed.names.index(name) for name in names})


def _write(viewed: ViewedRun, chosen: Sequence[int], folder: Path) -> None:
    (folder / "data").mkdir()
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(page.replace(_SERVED, _COPIED), encoding="utf-8")
    shutil.copytree(STATIC, folder / "static", ignore=shutil.ignore_patterns("index.html"))
    for number in chosen:
        document = case_document(viewed, number)
        _write_pictures(viewed, number, document, folder)
        (folder / "data" / f"case-{number}.js").write_text(as_script("viewerCase", document), encoding="utf-8")
    run = run_document(viewed, read_only=True, cases=chosen)
    (folder / "data" / "run.js").write_text(as_script("viewerRun", run), encoding="utf-8")
    numbers = {viewed.names[number]: number for number in chosen}
    (folder / CASES).write_text(json.dumps(numbers, indent=1), encoding="utf-8")


def _write_pictures(viewed: ViewedRun, number: int, document: Document, folder: Path) -> None:
    """Write the pictures of a case, and let its document refer to them."""
    for place, slide in enumerate(document["slides"]):
        picture = viewed.draw_whole(number, place, _LONGEST_SIDE)
        slide["picture"] = {"kind": "image", "url": f"case/{number}/slide/{place}/whole.jpg"}
        slide["note"] = viewed.note(number, place)
        _save(folder / slide["picture"]["url"], as_jpeg(picture, _QUALITY))
        for run, one in enumerate(slide["maps"]):
            for patch in [*one["highest"], *one["lowest"]] if one else []:
                _save(folder / patch["url"], viewed.patch(number, place, run, patch["scale"], patch["patch"]))
    with suppress(NotFoundError):  # of a case without slides
        _save(folder / f"case/{number}/thumbnail.jpg", viewed.thumbnail(number))


def _save(path: Path, content: Any) -> None:  # noqa: ANN401
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
