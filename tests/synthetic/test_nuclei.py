"""Nuclei distinguish a lesion from benign changes, and both from normal tissue; mean colour does not."""

from typing import NamedTuple

import numpy as np
import pytest
import tiffslide
from scipy.ndimage import binary_fill_holes, label
from scipy.stats import mannwhitneyu

from e2e_abmilx.synthetic import Truth, write_slide


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a value of the first kind exceeds one of the second."""
    return mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))


class Patches(NamedTuple):
    """Patches of 32 µm of one slide that lie wholly in one kind of tissue, shape ``(n, S, S, 3)``."""

    lesion: np.ndarray
    benign: np.ndarray
    normal: np.ndarray


def cut_patches(slide: tiffslide.TiffSlide, truth: Truth, level: int) -> Patches:
    side, patch = 1024 >> level, 64 >> level
    image = slide.read_region((0, 0), level, (side, side), as_array=True)
    grid = image.reshape(16, patch, 16, patch, 3).swapaxes(1, 2)
    masks = (truth.lesion, truth.benign, truth.tissue & ~truth.lesion & ~truth.benign)
    return Patches(*(grid[mask.reshape(16, 8, 16, 8).all(axis=(1, 3))] for mask in masks))


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Patches]]:
    """The patches of each of 16 slides, decoded from their files, by level: 0.5 and 1.0 µm per pixel."""
    cuts: dict[int, list[Patches]] = {0: [], 1: []}
    for seed in range(16):
        path = tmp_path_factory.mktemp("slides") / "a.tiff"
        truth = write_slide(path, seed=seed, lesion_fraction=0.35, benign_fraction=0.3, side=1024)
        with tiffslide.TiffSlide(path) as slide:
            for level, slides in cuts.items():
                slides.append(cut_patches(slide, truth, level))
    return cuts


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("changed", ["lesion", "benign"])
def test_mean_colour_distinguishes_no_kind_of_tissue(
    patches: dict[int, list[Patches]], level: int, changed: str
) -> None:
    means = [Patches(*(kind.mean(axis=(1, 2)) for kind in slide)) for slide in patches[level]]
    pairs = [(getattr(slide, changed), slide.normal) for slide in means]
    pairs = [pair for pair in pairs if all(map(len, pair))]
    difference = np.mean([one.mean(axis=0) - normal.mean(axis=0) for one, normal in pairs], axis=0)
    assert (abs(difference) < 1.2).all()  # of 255
    ones, normals = (np.concatenate(kind) for kind in zip(*pairs, strict=True))
    assert len(ones) > 150
    for channel in range(3):
        assert abs(auc(ones[:, channel], normals[:, channel]) - 0.5) < 0.1
        within = [auc(one[:, channel], normal[:, channel]) for one, normal in pairs]
        assert abs(np.mean(within) - 0.5) < 0.1


def mean_nuclear_area(patch: np.ndarray, mpp: float) -> float:
    """Return the mean area (µm²) of the nucleus under a dark pixel; nuclei absorb red light, eosin does not."""
    red = patch[..., 0].astype(int)
    nuclei, _ = label(binary_fill_holes(red < np.median(red) - 30))
    areas = np.bincount(nuclei.ravel())[1:] * mpp**2
    areas = areas[areas > 2]
    return float((areas**2).sum() / areas.sum()) if len(areas) else 0.0


@pytest.mark.parametrize("level", [0, 1])
def test_nuclear_size_distinguishes_a_lesion(patches: dict[int, list[Patches]], level: int) -> None:
    lesion, benign, normal = (
        np.array([mean_nuclear_area(patch, mpp=0.5 * 2**level) for slide in patches[level] for patch in slide[kind]])
        for kind in range(3)
    )
    assert auc(lesion, normal) > 0.95
    assert auc(lesion, benign) > 0.85
    assert 0.55 < auc(benign, normal) < 0.95  # on some slides the nuclei are hardly reactive
    assert 20 < np.median(normal) < 50  # 6-7 µm across is 28-38 µm²
