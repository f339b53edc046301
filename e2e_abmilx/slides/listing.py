"""The slides in a folder and the folders below it; what is left out is counted and said."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.slides.dicom import group_series

logger = logging.getLogger(__name__)

#: File name endings that are taken as slides when a folder is listed.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".svslide", ".bif", ".vms", ".dcm")

_EXAMPLES = 3  # names that are said of what is left out


class Listed(NamedTuple):
    """A slide that was found.

    Attributes:
        path: Its file; of a DICOM series the file of its finest level.
        name: Its name: the file's without the ending, or that of the folder that holds one DICOM series alone.
    """

    path: Path
    name: str


def plain_name(path: Path) -> str:
    """A file's name without its ending, in composed characters: what a Mac writes as ``é`` and others do is one name."""
    return unicodedata.normalize("NFC", path.stem)


def list_slides(folder: Path) -> list[Listed]:
    """The slides in a folder, at any depth, sorted by path.

    Linked folders are followed, each folder once, so that a link to a folder above ends there. Links to nothing, the
    ``._`` files that macOS leaves on other disks, and files of other endings are left out; the log counts them.
    """
    found, left_out, endings = [], Left(), Counter[str]()
    for path in _walk(folder, left_out):
        if path.name.startswith("._"):
            left_out.add("._ files of macOS, which hold no pixels", path)
        elif path.suffix.lower() not in SUFFIXES:
            endings[path.suffix.lower() or "no ending"] += 1
        elif not path.exists():
            left_out.add("links that lead nowhere", path)
        elif path.is_file():
            found.append(path)
    left_out.say(folder)
    if endings:
        kinds = ", ".join(f"{count} × {ending}" for ending, count in endings.most_common(5))
        logger.info("%s: %d files of other endings left out (%s)", folder, endings.total(), kinds)
    return join_series(found, folder)


def join_series(files: Sequence[Path], root: Path | None = None) -> list[Listed]:
    """The slides that files are, DICOM files of one series being one slide.

    Args:
        files: The files.
        root: The folder that was listed, which gives no slide its name.
    """
    dicom = [path for path in files if path.suffix.lower() == ".dcm"]
    if not dicom:
        return [Listed(path, plain_name(path)) for path in files]
    series, others = group_series(dicom)
    left_out = Left()
    for path in others:
        left_out.add("DICOM files that are no image of a slide", path)
    left_out.say(root or dicom[0].parent)
    alone = Counter(each.file.parent for each in series)
    names = {}
    for each in series:
        parent = each.file.parent
        by_folder = len(each.files) > 1 and alone[parent] == 1 and root is not None and parent != root
        names[each.file] = unicodedata.normalize("NFC", parent.name) if by_folder else plain_name(each.file)
    slides = [Listed(path, plain_name(path)) for path in files if path not in set(dicom)]
    return sorted([*slides, *(Listed(path, name) for path, name in names.items())]) if dicom else slides


class Left:
    """What is left out, to be said in one line a kind."""

    def __init__(self) -> None:
        self._paths: dict[str, list[Path]] = {}

    def add(self, why: str, path: Path) -> None:
        """Leave a path out."""
        self._paths.setdefault(why, []).append(path)

    def say(self, folder: Path) -> None:
        """Log how many there are of each kind, and the first names."""
        for why, paths in self._paths.items():
            names = ", ".join(
                str(path.relative_to(folder) if path.is_relative_to(folder) else path)
                for path in paths[:_EXAMPLES]
            )
            more = ", …" if len(paths) > _EXAMPLES else ""
            logger.warning("%s: left out %d %s: %s%s", folder, len(paths), why, names, more)


def _walk(folder: Path, left_out: Left) -> list[Path]:
    """Every file below a folder, sorted; linked folders too, but none twice."""
    seen = {os.path.realpath(folder)}
    files = []

    def refuse(error: OSError) -> None:
        left_out.add(f"folders that cannot be opened ({error.strerror})", Path(str(error.filename)))

    for name, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        folders.sort()
        for below in list(folders):
            real = os.path.realpath(Path(name, below))
            if real in seen:
                left_out.add("folders that are listed already, by a link", Path(name, below))
                folders.remove(below)
            seen.add(real)
        files += [Path(name, file) for file in names]
    return sorted(files)
