"""Slides for the tests of imported coordinates."""

from pathlib import Path

import pytest

from e2e_abmilx.synthetic import write_slide


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three slides of 1024 × 1024 pixels at 0.5 µm/px."""
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(("a", "b", "b.two_patches")):
        write_slide(folder / f"{name}.tiff", seed=seed, lesion_fraction=0.3, side=1024)
    return folder
