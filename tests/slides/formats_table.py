"""Every encoding of a TIFF, tried: what is accepted becomes docs/formats.md. Run this file to write it anew."""

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

Written by `tests/slides/formats_table.py` from files of each kind; a test keeps it up to date. Each row was
written with tifffile, read as a slide, and compared with what was drawn and with readers that share no code with
tifffile: OpenSlide, Pillow's libtiff, and Pillow's decoders of single images. The mean difference is at most 2 grey
levels, 4 with JPEG.

Everything else is refused, in words that say what it is: 16 bits a channel, floating point, grey, palettes, CIELab,
a fourth sample that the file does not explain, turned images (Orientation), stacks of focal planes. Slides of vendors'
own formats (MIRAX, DICOM, Hamamatsu, Leica, Philips, Sakura, Trestle, Ventana, Zeiss) are read by OpenSlide. Transparent pixels
show the background.

| samples | compression | lie | alpha | in | read by | confirmed by |
| --- | --- | --- | --- | --- | --- | --- |
"""

_WORDS = {"contiguous": "together", "separate": "plane by plane", "pages": "a page each"}


class Trial(NamedTuple):
    """What became of one file.

    Attributes:
        encoding: How it stores its pixels; None where there is no way to write it.
        reader: What read it; empty where it was refused.
        refusal: Why it was refused.
        difference: Mean difference to what was drawn, grey levels.
        confirmed: Independent readers that agree with what was drawn.
    """

    encoding: Encoding | None
    reader: str = ""
    refusal: str = ""
    difference: float = np.nan
    confirmed: frozenset[str] = frozenset()


def tolerance(variant: Variant) -> float:
    """Largest mean difference to what was drawn, grey levels."""
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
        if name != reader
        and seen.shape == expected.shape
        and np.abs(seen - expected).mean() <= tolerance(variant)
    }
    return Trial(encoding, reader, "", np.abs(pixels - expected).mean(), frozenset(confirmed))


def plain_variants() -> list[Variant]:
    """One variant for each encoding that may be accepted."""
    return [
        each
        for each in all_variants()
        if each.dtype == "uint8"
        and each.byteorder == "<"
        and not each.predictor
        and each.layout in ("tile 64×96", "strips of 40 rows")
    ]


def accepted(folder: Path) -> dict[Encoding, Trial]:
    """Each encoding that is accepted, as it was tried."""
    trials = (try_variant(folder / "one.tif", variant) for variant in plain_variants())
    return {trial.encoding: trial for trial in trials if trial.encoding and trial.reader}


def draw_table(trials: Iterable[Trial]) -> str:
    """The text of docs/formats.md."""
    order = list(TRUSTED)
    rows: dict[tuple[str, ...], list[str]] = {}
    for trial in sorted(trials, key=lambda trial: order.index(trial.encoding)):
        encoding = trial.encoding
        alike = (
            encoding.photometric, _WORDS[encoding.planar], encoding.alpha, encoding.layout, trial.reader,
            ", ".join(["what was drawn", *sorted(trial.confirmed)]),
        )  # fmt: skip
        rows.setdefault(alike, []).append(encoding.compression)
    lines = (
        f"| {photometric} | {', '.join(compressions)} | {lie} | {alpha} | {layout} | {reader} | {confirmed} |"
        for (photometric, lie, alpha, layout, reader, confirmed), compressions in rows.items()
    )
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(draw_table(accepted(Path(name)).values()), encoding="utf-8")
