from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.cache.colours import read_colours, slide_colours
from e2e_abmilx.store import PatchStore, write_store


def _store(path: Path, *patches: np.ndarray, scale: float = 0.5) -> PatchStore:
    write_store(path, {scale: (np.stack(patches).astype(np.uint8), None)})
    return PatchStore(path)


def test_statistics_of_the_tissue_without_the_glass(tmp_path: Path) -> None:
    patch = np.full((32, 32, 3), 245)
    patch[:16] = (180, 100, 140)
    found = slide_colours(_store(tmp_path / "a.zarr", patch, patch))
    assert found is not None
    assert found.shape == (21,)
    assert found[:3] == pytest.approx([180, 100, 140], abs=3)  # JPEG changes colours a little
    assert found[3:6] == pytest.approx(0, abs=3)
    assert found[12:15] == pytest.approx([180, 100, 140], abs=3)  # medians


def test_the_coarsest_scale_is_read_all_over_the_slide(tmp_path: Path) -> None:
    fine, first, last = (np.full((1, 16, 16, 3), value, np.uint8) for value in (10, 60, 160))
    coarse = np.concatenate([first] * 50 + [last] * 50)
    write_store(tmp_path / "a.zarr", {0.5: (fine, None), 1.0: (coarse, None)})
    found = slide_colours(PatchStore(tmp_path / "a.zarr"))
    assert found is not None
    assert found[:3] == pytest.approx([110] * 3, abs=1)
    assert found[3:6] == pytest.approx([50] * 3, abs=1)


def test_slides_without_tissue_or_store_have_no_colours(tmp_path: Path) -> None:
    _store(tmp_path / "glass.zarr", np.full((16, 16, 3), 250))
    _store(tmp_path / "tissue.zarr", np.full((16, 16, 3), 150))
    assert list(read_colours(tmp_path, ["glass", "gone", "tissue"])) == ["tissue"]


def test_real_stores(stores: Path) -> None:
    found = read_colours(stores, [f"slide-{number:03d}" for number in range(24)])
    assert len(found) == 24
    for colours in found.values():
        red, green, blue = colours[:3]
        assert green < blue < red  # haematoxylin and eosin absorb green most
