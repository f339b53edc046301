"""The slides in a folder and the folders below it; files that are left out are logged."""

import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.slides.dicom import group_series

logger = logging.getLogger(__name__)

#: Suffixes of the files that count as slides when a folder is listed.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".svslide", ".bif", ".vms", ".dcm")

_EXAMPLES = 3  # names that are logged of files left out for the same reason


class SlideFile(NamedTuple):
    """A slide to be read.

    Attributes:
        path: The file; of a DICOM series the file of its finest level.
        mpp: Level-0 µm per pixel, overriding what the slide states; None to believe the slide.
        title: Its name if that differs from the file's: the folder of a DICOM series that is alone in it.
    """

    path: Path
    mpp: float | None = None
    title: str = ""

    @property
    def name(self) -> str:
        """The slide's name."""
        return self.title or plain_name(self.path)


def plain_name(path: Path) -> str:
    """Return a file's name without suffix, in composed form (NFC): systems differ in how they spell accents."""
    return unicodedata.normalize("NFC", path.stem)


def list_slides(folder: Path) -> list[SlideFile]:
    """Return the slides in a folder, at any depth, sorted by path.

    Linked folders are followed, but each folder is listed once. Broken links, the ``._`` files that macOS leaves on
    other disks, and files with other suffixes are left out and counted in the log.
    """
    found, others = [], Counter[str]()
    left_out: dict[str, list[Path]] = defaultdict(list)
    for path in _walk(folder, left_out):
        if path.name.startswith("._"):
            left_out["._ files of macOS, which hold no pixels"].append(path)
        elif path.suffix.lower() not in SUFFIXES:
            others[path.suffix.lower() or "no suffix"] += 1
        elif not path.exists():
            left_out["broken links"].append(path)
        elif path.is_file():
            found.append(path)
    _log_left_out(folder, left_out)
    if others:
        kinds = ", ".join(f"{count} × {suffix}" for suffix, count in others.most_common(5))
        logger.info("%s: left out %d files with other suffixes (%s)", folder, others.total(), kinds)
    return join_series(found, folder)


def join_series(files: Sequence[Path], root: Path | None = None) -> list[SlideFile]:
    """Return the slides of these files, with each DICOM series as one; none is named after the listed folder, ``root``."""
    dicom = [path for path in files if path.suffix.lower() == ".dcm"]
    if not dicom:
        return [SlideFile(path) for path in files]
    series, others = group_series(dicom)
    _log_left_out(root or dicom[0].parent, {"DICOM files that are not images of a slide": others})
    series_in = Counter(each.file.parent for each in series)
    slides = [SlideFile(path) for path in files if path not in set(dicom)]
    for file, members in series:
        by_folder = len(members) > 1 and series_in[file.parent] == 1 and root not in (None, file.parent)
        title = unicodedata.normalize("NFC", file.parent.name) if by_folder else ""
        slides.append(SlideFile(file, None, "" if title == plain_name(file) else title))
    return sorted(slides, key=lambda slide: slide.path)


def _log_left_out(folder: Path, left_out: Mapping[str, Sequence[Path]]) -> None:
    """Log how many files were left out for each reason, and the names of the first."""
    for reason, paths in left_out.items():
        if paths:
            inside = [path.relative_to(folder) if path.is_relative_to(folder) else path for path in paths]
            names = ", ".join(map(str, inside[:_EXAMPLES])) + (", …" if len(paths) > _EXAMPLES else "")
            logger.warning("%s: left out %d %s: %s", folder, len(paths), reason, names)


def _walk(folder: Path, left_out: dict[str, list[Path]]) -> list[Path]:
    """Return every file below a folder, sorted, following links but listing no folder twice."""
    seen = {os.path.realpath(folder)}
    files = []

    def skip(error: OSError) -> None:
        left_out[f"folders that cannot be opened ({error.strerror})"].append(Path(str(error.filename)))

    for name, folders, names in os.walk(folder, followlinks=True, onerror=skip):
        folders.sort()
        for below in list(folders):
            real = os.path.realpath(Path(name, below))
            if real in seen:
                left_out["links to folders that are listed already"].append(Path(name, below))
                folders.remove(below)
            seen.add(real)
        files += [Path(name, file) for file in names]
    return sorted(files)
