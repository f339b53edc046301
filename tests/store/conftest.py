"""A store that every test of this folder may read."""

from pathlib import Path

import pytest
from small_stores import write_whole

from e2e_abmilx.store import PatchStore


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store of three scales; do not change it."""
    return write_whole(tmp_path_factory.mktemp("stores") / "slide 1.0 [HE].zarr")


@pytest.fixture
def store(path: Path) -> PatchStore:
    """That store, open."""
    return PatchStore(path)
