"""Slides for the tests of this folder."""

from pathlib import Path

import pytest

from e2e_abmilx.synthetic import write_slide


@pytest.fixture(scope="session")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic slide of 1024 × 1024 pixels in four levels, in tiles of 256 pixels."""
    path = tmp_path_factory.mktemp("slides") / "one.tiff"
    write_slide(path, seed=3, lesion_fraction=0.3, side=1024)
    return path
