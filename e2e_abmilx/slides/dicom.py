"""DICOM slides: the files of one series (levels, label, overview) are one slide."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.errors import InvalidDicomError

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_TAGS = ["SOPClassUID", "SeriesInstanceUID", "ImageType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"]


class Series(NamedTuple):
    """One slide: the file of its finest level, which represents the series, and all of its files."""

    file: Path
    files: tuple[Path, ...]


class _Header(NamedTuple):
    series: str
    is_volume: bool
    pixels: int


def group_series(files: Sequence[Path]) -> tuple[list[Series], list[Path]]:
    """Group DICOM files into slides, and return the files that belong to none, such as other kinds of scans.

    A file that cannot be read counts as a slide, so that its error is reported when it is opened.
    """
    grouped: dict[tuple[Path, str], list[tuple[_Header, Path]]] = defaultdict(list)
    others = []
    for file in files:
        try:
            header = _read_header(file)
        except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, EOFError):
            header = _Header(f"unreadable {file}", True, 0)
        if header is None:
            others.append(file)
        else:
            grouped[file.parent, header.series].append((header, file))
    series = []
    for members in grouped.values():
        volumes = [(header.pixels, file) for header, file in members if header.is_volume]
        if volumes:
            series.append(Series(max(volumes)[1], tuple(sorted(file for _, file in members))))
        else:  # a label or an overview without its slide
            others += [file for _, file in members]
    return sorted(series), sorted(others)


def _read_header(file: Path) -> _Header | None:
    """Read which series a file belongs to; None if it is not an image of a slide."""
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
    if str(header.get("SOPClassUID", "")) != _WHOLE_SLIDE:
        return None
    pixels = int(header.get("TotalPixelMatrixColumns") or 0) * int(header.get("TotalPixelMatrixRows") or 0)
    return _Header(str(header.SeriesInstanceUID), "VOLUME" in (header.get("ImageType") or []), pixels)
