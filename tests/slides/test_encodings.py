"""TIFFs in every encoding: each is either read as drawn or refused with its name."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from formats_table import TABLE, Trial, accepted, draw_table, tolerance, try_variant
from tiff_variants import Variant, all_variants, drawn

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.slides.encodings import OPENSLIDE, TRUSTED

VARIANTS = all_variants()
SAMPLE = [VARIANTS[index] for index in np.random.default_rng(0).permutation(len(VARIANTS))[:60]]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[object, Trial]:
    return accepted(tmp_path_factory.mktemp("accepted"))


def test_accepted_encodings_are_those_of_the_table_and_correct(trials: dict[object, Trial]) -> None:
    assert trials.keys() == TRUSTED.keys()
    for encoding, trial in trials.items():
        assert trial.reader == TRUSTED[encoding]
        assert trial.difference <= (4 if encoding.compression == "jpeg" else 2)
        assert trial.confirmed or trial.reader == OPENSLIDE, f"no independent reader confirms {encoding}"


def test_the_page_of_formats_is_up_to_date(trials: dict[object, Trial]) -> None:
    assert TABLE.read_text(encoding="utf-8") == draw_table(trials.values()), "run python tests/slides/formats_table.py"


def _judge(folder: Path, variants: list[Variant]) -> tuple[int, int]:
    read = refused = 0
    for variant in variants:
        trial = try_variant(folder / "one.tif", variant)  # any error other than a SlideError fails the test
        if trial.reader:
            read += 1
            assert trial.difference <= tolerance(variant), variant
        elif trial.refusal:
            refused += 1
            assert re.search(r"cannot be read: .{20,}", trial.refusal), trial.refusal
            assert str(folder) in trial.refusal
    return read, refused


def test_a_sample_of_encodings(tmp_path: Path) -> None:
    read, refused = _judge(tmp_path, SAMPLE)
    assert read >= 3
    assert refused >= 30


@pytest.mark.slow
def test_all_encodings(tmp_path: Path) -> None:
    assert len(VARIANTS) >= 300
    read, refused = _judge(tmp_path, VARIANTS)
    assert read >= 300
    assert refused >= 300


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (Variant(dtype="uint16"), "16 bits"),
        (Variant(dtype="uint32"), "32 bits"),
        (Variant(dtype="float32"), "type float, 32 bits"),
        (Variant(dtype="float64", layout="one strip"), "type float, 64 bits"),
        (Variant(dtype="int8"), "type int"),
        (Variant("minisblack"), r"grey \(minisblack"),
        (Variant("miniswhite"), r"grey \(miniswhite"),
        (Variant("minisblack", dtype="uint16"), "16 bits"),
        (Variant("minisblack", dtype="bool"), "1 bits"),
        (Variant("palette"), "palette"),
        (Variant("cielab"), "cielab"),
        (Variant(alpha="unspecified"), "does not state whether the last"),
        (Variant("separated", layout="one strip"), "separated, deflate, strips"),
        (Variant("ycbcr", layout="one strip"), "ycbcr, deflate, strips"),
        (Variant(compression="jpegxl"), "jpegxl"),
    ],
)
def test_refusals_describe_the_encoding(tmp_path: Path, variant: Variant, words: str) -> None:
    assert re.search(words, try_variant(tmp_path / "one.tif", variant).refusal)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [(274, 6, "orientation 6"), (274, 3, "orientation 3"), (266, 2, "fill order 2"), (317, 3, "predictor 3")],
)
def test_oddities_are_refused(tmp_path: Path, tag: int, value: int, words: str) -> None:
    path = tmp_path / "odd.tif"
    # tifffile does not write these tags, so the number of another one is changed afterwards.
    tags = [(65001, 3, 1, value, True)]
    tifffile.imwrite(
        path, drawn(), photometric="rgb", compression="deflate", tile=(64, 96), extratags=tags, metadata=None
    )
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.filehandle.seek(tiff.pages[0].tags[65001].offset)
        tiff.filehandle.write(tag.to_bytes(2, "little"))
    with pytest.raises(SlideError, match=words):
        Slide(path)


def test_ycbcr_with_subsampled_colours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, drawn(), photometric="ycbcr", compression="deflate", tile=(64, 96), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["YCbCrSubSampling"].overwrite((2, 1))
    with pytest.raises(SlideError, match="colours subsampled by 2 × 1"):
        Slide(path)
