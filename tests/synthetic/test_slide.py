"""One synthetic slide: the file as other software reads it, its colours, equal results for equal seeds."""

import os
from pathlib import Path

import numpy as np
import pytest
import tiffslide
from scipy.stats import mannwhitneyu

from e2e_abmilx.errors import InputError
from e2e_abmilx.synthetic import draw_slide, write_slide


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_tiffslide_reads_a_pyramid_with_its_resolution(tmp_path: Path, mpp: float) -> None:
    path = tmp_path / "new" / "a.tiff"
    truth = write_slide(path, seed=3, lesion_fraction=0.2, side=512, mpp=mpp)
    image, drawn = draw_slide(seed=3, lesion_fraction=0.2, side=512, mpp=mpp)
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
            assert error < 0.7 * abs(np.roll(read, 1, axis=1) - mean).mean()  # nothing is shifted
            assert abs((read - mean).mean()) < 0.5
        corner = slide.read_region((160, 96), 1, (40, 24), as_array=True)
        whole = slide.read_region((0, 0), 1, (256, 256), as_array=True)
        assert np.array_equal(corner, whole[48:72, 80:120])


@pytest.mark.parametrize("seed", range(5))
def test_tissue_is_coloured_and_glass_is_off_white(seed: int) -> None:
    image, truth = draw_slide(seed=seed, lesion_fraction=0.2, side=1024)
    blocks = image.reshape(128, 8, 128, 8, 3).mean(axis=(1, 3))
    glass = blocks[~truth.tissue]
    is_flat = np.median(abs(glass - np.median(glass, axis=0)), axis=1) < 3  # not the rim of the tissue
    glass = glass[is_flat]
    assert len(glass) > 0.8 * (~truth.tissue).sum()
    assert (glass > 222).all()
    assert glass.std() > 0.1
    saturation = np.ptp(blocks, axis=-1)
    coloured, pale = saturation[truth.tissue], saturation[~truth.tissue]
    assert mannwhitneyu(coloured, pale).statistic / (len(coloured) * len(pale)) > 0.98


def test_stain_differs_from_slide_to_slide() -> None:
    means = []
    for seed in range(12):
        image, truth = draw_slide(seed=seed, lesion_fraction=0, side=256)
        means.append(image[np.kron(truth.tissue, np.ones((8, 8), bool))].mean(axis=0))
    assert (np.std(means, axis=0) > 2).all()  # grey levels of 255


def test_the_seed_determines_the_slide() -> None:
    image, truth = draw_slide(seed=0, lesion_fraction=0.3, side=512)
    again, same = draw_slide(seed=0, lesion_fraction=0.3, side=512)
    assert np.array_equal(image, again)
    assert all(np.array_equal(a, b) for a, b in zip(truth, same, strict=True))
    other, different = draw_slide(seed=1, lesion_fraction=0.3, side=512)
    assert not np.array_equal(image, other)
    assert not np.array_equal(truth.tissue, different.tissue)


def test_a_file_that_cannot_be_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.tiff").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_slide(tmp_path / "a.tiff", seed=0, lesion_fraction=0, side=256)
    assert os.listdir(tmp_path) == ["a.tiff"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"lesion_fraction": 1.0}, r"lesion_fraction is 1\.0; it is a fraction .* \[0, 1\): give 0"),
        ({"lesion_fraction": -0.1}, r"lesion_fraction is -0\.1;"),
        ({"lesion_fraction": float("nan")}, "lesion_fraction is nan;"),
        ({"benign_fraction": -0.1}, r"benign_fraction is -0\.1;"),
        ({"benign_fraction": 0.8}, r"benign_fraction is 0\.8; it .* with lesion_fraction, 0\.2, .* \[0, 1\): give 0"),
        ({"benign_fraction": float("nan")}, "benign_fraction is nan;"),
        ({"side": 1000}, "side is 1000 pixels; it must be a multiple of 256.*try 1024"),
        ({"side": 0}, "side is 0 pixels; .*try 256"),
        ({"mpp": 0.0}, r"mpp is 0\.0 µm per pixel; it must lie in \[0\.1, 2\]"),
        ({"mpp": float("nan")}, "mpp is nan µm per pixel;"),
        ({"seed": -4}, "seed is -4; it must not be negative: try 4"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        write_slide(tmp_path / "a.tiff", **{"seed": 0, "lesion_fraction": 0.2, "side": 256, **wrong})
    assert not list(tmp_path.iterdir())
