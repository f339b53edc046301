"""The true masks: areas are as requested and lesions lie inside the tissue."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e_abmilx.synthetic import MASK_DOWNSAMPLE, draw_slide
from e2e_abmilx.synthetic.truth import draw_noise, lay_out


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lesion_fraction=st.floats(0, 1, exclude_max=True), benign=st.floats(0, 0.99))
def test_areas_are_as_requested_on_any_slide(seed: int, lesion_fraction: float, benign: float) -> None:
    benign_fraction = benign * (1 - lesion_fraction)
    image, truth = draw_slide(seed=seed, lesion_fraction=lesion_fraction, benign_fraction=benign_fraction, side=256)
    assert image.shape == (256, 256, 3)
    assert truth.tissue.shape == truth.lesion.shape == truth.benign.shape == (256 // MASK_DOWNSAMPLE,) * 2
    assert not (truth.lesion & ~truth.tissue).any()
    assert not (truth.benign & (truth.lesion | ~truth.tissue)).any()
    assert abs(truth.lesion_fraction - lesion_fraction) <= 0.5 / truth.tissue.sum() + 1e-12
    assert abs(truth.benign.sum() / truth.tissue.sum() - benign_fraction) <= 1 / truth.tissue.sum() + 1e-12
    assert 0.4 < truth.tissue.mean() < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_benign_changes_leave_tissue_and_lesion_where_they_are(seed: int) -> None:
    without, opacity = lay_out(np.random.default_rng(seed), 64, 0.2)
    truth, same = lay_out(np.random.default_rng(seed), 64, 0.2, 0.3)
    assert np.array_equal(truth.tissue, without.tissue)
    assert np.array_equal(truth.lesion, without.lesion)
    assert np.array_equal(opacity, same)
    assert not without.benign.any()
    assert truth.benign.any()


@pytest.mark.parametrize("seed", range(5))
def test_opacity_follows_the_tissue_mask(seed: int) -> None:
    truth, opacity = lay_out(np.random.default_rng(seed), 64, 0.2)
    assert opacity.shape == (64 * MASK_DOWNSAMPLE,) * 2
    blocks = opacity.reshape(64, MASK_DOWNSAMPLE, 64, MASK_DOWNSAMPLE).mean(axis=(1, 3))
    assert blocks[truth.tissue].min() > 0.3
    assert blocks[~truth.tissue].max() < 0.7
    assert blocks[truth.tissue].mean() > 0.95
    assert blocks[~truth.tissue].mean() < 0.05


def test_noise_stays_within_its_amplitudes_and_is_smooth() -> None:
    noise = draw_noise(np.random.default_rng(0), 256, {64: 1.0, 16: 0.5})
    assert noise.shape == (256, 256)
    assert noise.dtype == np.float32
    assert 0.5 < abs(noise).max() <= 1.5
    assert abs(np.diff(noise, axis=0)).max() < 0.2
