"""Fixtures of the tests of heatmaps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.heatmaps import Contribution, SlideAttention
from e2e_abmilx.store import PatchStore


@pytest.fixture(scope="module")
def attention(stores: Path) -> SlideAttention:
    """Attention of three heads, over both scales of a slide of 512 × 512 pixels."""
    store = PatchStore(stores / "slide-003.zarr")
    scales = range(len(store.scales))
    coords = np.concatenate([store.coords(scale) for scale in scales])
    scale = np.concatenate([np.full(store.num_patches(scale), scale) for scale in scales])
    weights = np.random.default_rng(0).exponential(size=(3, len(coords)))
    return SlideAttention.from_weights(store, coords, scale, weights / weights.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def contributing(attention: SlideAttention) -> SlideAttention:
    """The same attention with contributions of both signs."""
    values = np.random.default_rng(1).normal(size=len(attention.coords)) ** 3 / 1000
    return replace(attention, contribution=Contribution("log-odds of tumour", values))
