"""A trial of every TIFF encoding; run this file to write the accepted ones to docs/formats.md."""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from tiff_variants import HEIGHT, WIDTH, Variant, all_variants, read_independently, truth, write

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.slides.encodings import TRUSTED, Encoding
from e2e_abmilx.slides.pyramids import level_encodings

TABLE = Path(__file__).parents[2] / "docs/formats.md"

HEAD = """# Which TIFFs are read

Written by `tests/slides/formats_table.py` from files of each kind; a test keeps it up to date. Files of each row were
written with tifffile, read as a slide, and compared with the original picture and with readers that share no code with
tifffile: OpenSlide, Pillow's libtiff, and Pillow's decoders of single images. The mean difference is at most 2 grey
levels, 4 with JPEG.

Everything else is refused with a message that describes the encoding: 16 bits per channel, floating point, grey,
palettes, CIELab, a fourth sample that the file does not explain, rotated or mirrored images (Orientation), stacks of
focal planes. Slides in vendors' own formats (MIRAX, DICOM, Hamamatsu, Leica, Philips, Sakura, Trestle, Ventana, Zeiss) are
read by OpenSlide. Transparent pixels show the background.

| samples | compression | planes | alpha | layout | read by | confirmed by |
| --- | --- | --- | --- | --- | --- | --- |
"""

_WORDS = {"contiguous": "interleaved", "separate": "one plane per sample", "pages": "one page per channel"}


class Trial(NamedTuple):
    """The result for one file.

    Attributes:
        encoding: How it stores its pixels; None if it cannot be written.
        reader: The reader; empty if the file was refused.
        refusal: Why it was refused.
        difference: Mean difference from the original picture, grey levels.
        confirmed: Independent readers that agree with the original picture.
    """

    encoding: Encoding | None
    reader: str = ""
    refusal: str = ""
    difference: float = np.nan
    confirmed: frozenset[str] = frozenset()


def tolerance(variant: Variant) -> float:
    """Return the largest accepted mean difference from the original picture, grey levels."""
    return 4.0 if variant.compression == "jpeg" else 2.0


def try_variant(path: Path, variant: Variant) -> Trial:
    """Write a variant, read it, and compare."""
    if not write(path, variant):
        return Trial(None)
    with tifffile.TiffFile(path) as tiff:
        try:
            encoding = level_encodings(tiff.series[0])[0]
        except SlideError as error:
            encoding = None
            reason = str(error)
    try:
        with Slide(path) as slide:
            reader, pixels = slide.reader, slide.read_level(0, 0, 0, WIDTH, HEIGHT)
    except SlideError as error:
        return Trial(encoding or Encoding(variant.photometric, variant.compression), refusal=str(error))
    assert encoding is not None, reason
    expected = truth(variant).astype(float)
    confirmed = {
        name
        for name, seen in read_independently(path).items()
        if name != reader and seen.shape == expected.shape and np.abs(seen - expected).mean() <= tolerance(variant)
    }
    return Trial(encoding, reader, "", np.abs(pixels - expected).mean(), frozenset(confirmed))


def plain_variants() -> list[Variant]:
    """Return one variant per encoding that may be accepted."""
    return [
        each
        for each in all_variants()
        if each.dtype == "uint8"
        and each.byteorder == "<"
        and not each.predictor
        and each.layout in ("tile 64×96", "strips of 40 rows")
    ]


def accepted(folder: Path) -> dict[Encoding, Trial]:
    """Return the accepted encodings with their trials."""
    trials = (try_variant(folder / "one.tif", variant) for variant in plain_variants())
    return {trial.encoding: trial for trial in trials if trial.encoding and trial.reader}


def draw_table(trials: Iterable[Trial]) -> str:
    """Return the text of docs/formats.md."""
    order = list(TRUSTED)
    rows: dict[tuple[str, ...], list[str]] = {}
    for trial in sorted(trials, key=lambda trial: order.index(trial.encoding)):
        encoding = trial.encoding
        row = (
            encoding.photometric, _WORDS[encoding.planar], encoding.alpha, encoding.layout, trial.reader,
            ", ".join(["original", *sorted(trial.confirmed)]),
        )  # fmt: skip
        rows.setdefault(row, []).append(encoding.compression)
    lines = (
        f"| {photometric} | {', '.join(compressions)} | {planes} | {alpha} | {layout} | {reader} | {confirmed} |"
        for (photometric, planes, alpha, layout, reader, confirmed), compressions in rows.items()
    )
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(draw_table(accepted(Path(name)).values()), encoding="utf-8")
