"""Synthetic slides: what other software reads in them, that they repeat, and that their answers are true."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tiffslide
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from scipy.ndimage import binary_fill_holes, label
from scipy.stats import mannwhitneyu

from e2e_abmilx.errors import InputError
from e2e_abmilx.synthetic import MASK_DOWNSAMPLE, Truth, draw_slide, plan_labels, write_cohort, write_slide


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a value of the first kind is above one of the second."""
    return mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# One slide ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_tiffslide_reads_a_pyramid_with_its_resolution(tmp_path, mpp):
    path = tmp_path / "new" / "a.tiff"
    truth = write_slide(path, seed=3, lesion_share=0.2, side=512, mpp=mpp)
    image, drawn = draw_slide(seed=3, lesion_share=0.2, side=512, mpp=mpp)
    assert all(np.array_equal(a, b) for a, b in zip(truth, drawn, strict=True))
    with tiffslide.TiffSlide(path) as slide:
        assert slide.level_dimensions == ((512, 512), (256, 256), (128, 128), (64, 64))
        assert slide.level_downsamples == (1, 2, 4, 8)
        assert slide.properties["tiffslide.mpp-x"] == mpp
        assert slide.properties["tiffslide.mpp-y"] == mpp
        assert slide.properties["tiffslide.level[0].tile-width"] == 256
        assert slide.ts_tifffile.pages[0].compression.name == "JPEG"
        for level in range(4):
            side = 512 >> level
            read = slide.read_region((0, 0), level, (side, side), as_array=True).astype(float)
            mean = image.reshape(side, 2**level, side, 2**level, 3).mean(axis=(1, 3))
            error = abs(read - mean).mean()
            assert error < 5  # grey levels lost to JPEG
            assert error < 0.7 * abs(np.roll(read, 1, axis=1) - mean).mean()  # and nothing is shifted
            assert abs((read - mean).mean()) < 0.5
        corner = slide.read_region((160, 96), 1, (40, 24), as_array=True)
        whole = slide.read_region((0, 0), 1, (256, 256), as_array=True)
        assert np.array_equal(corner, whole[48:72, 80:120])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lesion_share=st.floats(0, 1, exclude_max=True))
def test_truth_holds_on_any_slide(seed, lesion_share):
    image, truth = draw_slide(seed=seed, lesion_share=lesion_share, side=256)
    assert image.shape == (256, 256, 3)
    assert truth.tissue.shape == truth.lesion.shape == (256 // MASK_DOWNSAMPLE,) * 2
    assert not (truth.lesion & ~truth.tissue).any()
    assert abs(truth.lesion_share - lesion_share) <= 0.5 / truth.tissue.sum() + 1e-12
    assert 0.4 < truth.tissue.mean() < 0.6


@pytest.mark.parametrize("seed", range(5))
def test_tissue_is_coloured_and_glass_is_off_white(seed):
    image, truth = draw_slide(seed=seed, lesion_share=0.2, side=1024)
    blocks = image.reshape(128, 8, 128, 8, 3).mean(axis=(1, 3))
    glass = blocks[~truth.tissue]
    glass = glass[
        np.median(abs(glass - np.median(glass, axis=0)), axis=1) < 3
    ]  # without the rim of the tissue
    assert len(glass) > 0.8 * (~truth.tissue).sum()
    assert (glass > 222).all()
    assert glass.std() > 0.1
    saturation = np.ptp(blocks, axis=-1)
    assert auc(saturation[truth.tissue], saturation[~truth.tissue]) > 0.98


def test_stain_differs_from_slide_to_slide():
    means = []
    for seed in range(12):
        image, truth = draw_slide(seed=seed, lesion_share=0, side=256)
        means.append(image[np.kron(truth.tissue, np.ones((8, 8), bool))].mean(axis=0))
    assert (np.std(means, axis=0) > 2).all()  # grey levels of 255


def test_pixels_are_the_golden_ones():
    image, truth = draw_slide(seed=0, lesion_share=0.3, side=512)
    again, _ = draw_slide(seed=0, lesion_share=0.3, side=512)
    assert np.array_equal(image, again)
    assert digest(image.tobytes()) == "dd1be9de9960b8c7"
    assert digest(truth.tissue.tobytes(), truth.lesion.tobytes()) == "9fb16b22b03b4d20"


def test_a_file_that_cannot_be_finished_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.tiff").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_slide(tmp_path / "a.tiff", seed=0, lesion_share=0, side=256)
    assert os.listdir(tmp_path) == ["a.tiff"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"lesion_share": 1.0}, r"lesion_share is 1\.0 but must lie in \[0, 1\).*give 0"),
        ({"lesion_share": -0.1}, r"lesion_share is -0\.1 but"),
        ({"lesion_share": float("nan")}, "lesion_share is nan but"),
        ({"side": 1000}, "side is 1000 pixels but must be a multiple of 256.*try 1024"),
        ({"side": 0}, "side is 0 pixels but.*try 256"),
        ({"mpp": 0.0}, r"mpp is 0\.0 µm per pixel but must lie in \[0\.1, 2\]"),
        ({"mpp": float("nan")}, "mpp is nan µm per pixel but"),
        ({"seed": -4}, "seed is -4 but must not be negative; try 4"),
    ],
)
def test_wrong_slides_are_refused(tmp_path, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        write_slide(tmp_path / "a.tiff", **{"seed": 0, "lesion_share": 0.2, "side": 256, **wrong})
    assert not list(tmp_path.iterdir())


# Lesion against normal tissue -----------------------------------------------------------------------------------


class Patches(NamedTuple):
    """Patches of 32 µm on one slide that lie wholly in lesion, or wholly in normal tissue: ``(n, S, S, 3)``."""

    lesion: np.ndarray
    normal: np.ndarray


def cut(slide: tiffslide.TiffSlide, truth: Truth, level: int) -> Patches:
    side, patch = 1024 >> level, 64 >> level
    image = slide.read_region((0, 0), level, (side, side), as_array=True)
    grid = image.reshape(16, patch, 16, patch, 3).swapaxes(1, 2)
    lesion, normal = (
        mask.reshape(16, 8, 16, 8).all(axis=(1, 3)) for mask in (truth.lesion, truth.tissue & ~truth.lesion)
    )
    return Patches(grid[lesion], grid[normal])


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> dict[int, list[Patches]]:
    """By level, that is at 0.5 and at 1.0 µm/px: the patches of each of 16 slides, as decoded from the files."""
    cuts: dict[int, list[Patches]] = {0: [], 1: []}
    for seed in range(16):
        path = tmp_path_factory.mktemp("slides") / "a.tiff"
        truth = write_slide(path, seed=seed, lesion_share=0.4, side=1024)
        with tiffslide.TiffSlide(path) as slide:
            for level, slides in cuts.items():
                slides.append(cut(slide, truth, level))
    return cuts


@pytest.mark.parametrize("level", [0, 1])
def test_mean_colour_does_not_tell_a_lesion(patches, level):
    means = [Patches(*(kind.mean(axis=(1, 2)) for kind in slide)) for slide in patches[level]]
    difference = np.mean([slide.lesion.mean(axis=0) - slide.normal.mean(axis=0) for slide in means], axis=0)
    assert (abs(difference) < 1).all()  # of 255
    lesion, normal = (np.concatenate(kind) for kind in zip(*means, strict=True))
    assert len(lesion) > 200
    for channel in range(3):
        assert abs(auc(lesion[:, channel], normal[:, channel]) - 0.5) < 0.1
        within = [auc(slide.lesion[:, channel], slide.normal[:, channel]) for slide in means]
        assert abs(np.mean(within) - 0.5) < 0.1


def mean_nuclear_area(patch: np.ndarray, mpp: float) -> float:
    """µm² of the nucleus under a random dark pixel: red light is what nuclei stop and the pink ground lets through."""
    red = patch[..., 0].astype(int)
    nuclei, _ = label(binary_fill_holes(red < np.median(red) - 30))
    areas = np.bincount(nuclei.ravel())[1:] * mpp**2
    areas = areas[areas > 2]
    return float((areas**2).sum() / areas.sum()) if len(areas) else 0.0


@pytest.mark.parametrize("level", [0, 1])
def test_nuclear_size_tells_a_lesion(patches, level):
    areas = [
        np.array(
            [
                mean_nuclear_area(patch, mpp=0.5 * 2**level)
                for slide in patches[level]
                for patch in slide[kind]
            ]
        )
        for kind in range(2)
    ]
    assert auc(*areas) > 0.95
    assert 20 < np.median(areas[1]) < 50  # 6-7 µm across is 28-38 µm²


# A cohort -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(slides=st.integers(24, 100), seed=st.integers(0, 2**32 - 1))
def test_every_split_has_its_share_of_classes_and_events(slides, seed):
    labels = plan_labels(slides, seed=seed)
    assert labels["case"].is_unique
    assert labels["slide"].is_unique
    assert ((labels["lesion"] == 1) == (labels["grade"] > 0)).all()
    ranges = {0: (0, 0), 1: (0.10, 0.22), 2: (0.30, 0.50)}
    for grade, rows in labels.groupby("grade"):
        assert rows["lesion_share"].between(*ranges[grade]).all()
    assert (labels["time"] > 0).all()
    assert set(labels["event"]) == {0, 1}
    for split, share in (("train", 1 / 2), ("val", 1 / 6), ("test", 1 / 3)):
        rows = labels[labels["split"] == split]
        assert abs(len(rows) - share * slides) <= 2
        for lesion in (0, 1):
            assert abs((rows["lesion"] == lesion).sum() - share * slides / 2) <= 2
            assert (rows["lesion"] == lesion).any()
        assert rows["event"].any()


def test_survival_follows_the_area_of_the_lesion():
    cohorts = [plan_labels(48, seed=seed) for seed in range(20)]
    c_index = [concordance_index(each["time"], -each["lesion_share"], each["event"]) for each in cohorts]
    assert np.mean(c_index) > 0.85
    assert min(c_index) > 0.8
    assert 0.6 < np.mean([each["event"].mean() for each in cohorts]) < 0.8


def test_labels_are_the_golden_ones():
    assert digest(plan_labels(48, seed=0).to_csv(index=False).encode()) == "fac80b711fe0368f"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "demo"
    write_cohort(folder, slides=24, side=256, seed=5, workers=1)
    return folder


def test_a_cohort_is_what_its_labels_say(cohort):
    labels = pd.read_csv(cohort / "labels.csv")
    pd.testing.assert_frame_equal(labels, plan_labels(24, seed=5))
    assert {file.stem for file in (cohort / "slides").iterdir()} == set(labels["slide"])
    assert {file.stem for file in (cohort / "masks").iterdir()} == set(labels["slide"])
    for row in labels.itertuples():
        mask = imagecodecs.png_decode((cohort / "masks" / f"{row.slide}.png").read_bytes())
        assert mask.shape == (32, 32)
        assert set(np.unique(mask)) == ({0, 255} if row.lesion else {0})
        assert (mask > 0).sum() == pytest.approx(
            row.lesion_share * 0.5 * mask.size, rel=0.25
        )  # tissue: 42-58 %


def test_neither_workers_nor_the_run_change_a_byte(cohort, tmp_path):
    write_cohort(tmp_path, slides=24, side=256, seed=5, workers=2)
    assert contents(tmp_path) == contents(cohort)


def test_slides_of_a_cohort_differ(cohort):
    assert len(set(contents(cohort / "slides").values())) == 24


def test_a_finished_cohort_is_left_alone_and_an_unfinished_one_is_finished(tmp_path):
    def write() -> Path:
        return write_cohort(tmp_path, slides=24, side=256, seed=5)

    def stamps() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}

    table = write()
    assert table == tmp_path / "labels.csv"
    before, bytes_before = stamps(), contents(tmp_path)
    assert write() == table
    assert stamps() == before

    lost = [tmp_path / "slides" / "slide-003.tiff", tmp_path / "masks" / "slide-007.png", table]
    for file in lost:
        file.unlink()
    write()
    assert contents(tmp_path) == bytes_before
    rewritten = {file for file, stamp in stamps().items() if before[file] != stamp}
    assert rewritten == {*lost, tmp_path / "masks" / "slide-003.png", tmp_path / "slides" / "slide-007.tiff"}


def test_a_folder_of_something_else_is_refused_and_left_alone(cohort, tmp_path):
    before = contents(cohort)
    with pytest.raises(InputError, match=r"holds a synthetic cohort of other settings.*name another folder"):
        write_cohort(cohort, slides=24, side=512, seed=5)
    assert contents(cohort) == before

    (tmp_path / "labels.csv").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no synthetic cohort.*name a new one"):
        write_cohort(tmp_path, slides=24, side=256)
    assert contents(tmp_path) == {"labels.csv": b"mine"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"slides": 23}, "slides is 23 but must be 24 or more, so that every split has.*ask for 24"),
        ({"side": 300}, "side is 300 pixels but"),
        ({"workers": 0}, "workers is 0 but must be 1 or more; give the number of cores"),
    ],
)
def test_wrong_cohorts_are_refused_before_anything_is_written(tmp_path, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        write_cohort(tmp_path / "demo", **wrong)
    assert not list(tmp_path.iterdir())
