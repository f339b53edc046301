"""Attributes of imported stores."""

from pathlib import Path

import numpy as np
from foreign_files import picture
from PIL import Image

from e2e_abmilx.cache.imports import import_images
from e2e_abmilx.cache.imports.attributes import nan_to_none
from e2e_abmilx.store import PatchStore


def test_an_unknown_resolution_is_none() -> None:
    assert nan_to_none([0.5, float("nan")]) == [0.5, None]


def test_an_import_without_its_slide_records_what_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "in/s").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(picture(number)).save(tmp_path / f"in/s/{number}.png")
    (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
    attributes = dict(PatchStore(tmp_path / "out/s.zarr").attributes)
    imported = attributes.pop("imported")
    assert imported["images"] == "s"
    assert attributes == {
        "slide_mpp": None, "slide_mpp_source": "unknown", "patch_mpp": [None], "grid_patches": [2],
    }  # fmt: skip
    assert (row.mpp, row.mpp_source, row.unreadable) == (None, "unknown", 0)
    assert np.isnan(PatchStore(tmp_path / "out/s.zarr").scales[0])
