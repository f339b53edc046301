"""Feature files as each tool writes them: shapes, types and attributes follow its source code."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from e2e_abmilx.data.features import SlideFeatures

RNG = np.random.default_rng(0)


FEATURES = RNG.standard_normal((9, 6)).astype(np.float32)


COORDS = RNG.integers(0, 90_000, (9, 2)) // 512 * 512


def write_h5(path: Path, tables: dict[str, Any], on: dict[str, dict[str, Any]] | None = None) -> Path:
    """Write an HDF5 file, with attributes ``on`` a table or on the file itself ("")."""
    with h5py.File(path, "w") as file:
        for name, table in tables.items():
            file.create_dataset(name, data=table, chunks=(1, *table.shape[1:]) if table.size else None)
        for name, attributes in (on or {}).items():
            (file[name] if name else file).attrs.update(attributes)
    return path


def write_trident(path: Path, features: np.ndarray = FEATURES, **attributes: Any) -> Path:
    own = {"name": "slide", "savetodir": "somewhere"}
    grid = {
        "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
        "overlap": 0, "level0_width": 100_000, "level0_height": 90_000,
    }  # fmt: skip
    on = {"features": {**own, "encoder": "None"}, "coords": {**own, **grid, **attributes}}
    return write_h5(path, {"features": features, "coords": COORDS}, on)


STAMP = {
    "stamp_version": "2.4.0", "extractor": "uni2", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224,
    "code_hash": "0", "feat_type": "tile",
}  # fmt: skip


def write_stamp(path: Path, um: np.ndarray, attributes: dict[str, Any], key: str = "feats") -> Path:
    features = np.resize(FEATURES, (len(um), 6)).astype(np.float16)
    return write_h5(path, {key: features, "coords": um.astype(np.float32)}, {"": attributes})


def write_pt(path: Path, content: object, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def assert_same(found: SlideFeatures, features: np.ndarray = FEATURES) -> None:
    """Assert that all features, and some rows, are read in float32."""
    assert (found.num_patches, found.num_features) == features.shape
    assert found.read().dtype == torch.float32
    np.testing.assert_array_equal(found.read().numpy(), features)
    np.testing.assert_array_equal(found.read(np.array([0, 3, 8])).numpy(), features[[0, 3, 8]])


def write_slideflow(folder: Path, settings: dict[str, Any] | None) -> Path:
    """Write the centres of tiles, rounded down; slideflow rounds the extent of a tile to whole pixels."""
    path = write_pt(folder / "slide.pt", torch.from_numpy(FEATURES))
    extent = int(302 / 0.2526)
    np.savez(folder / "slide.index.npz", (COORDS + extent / 2).astype(np.int64))
    if settings is not None:
        (folder / "bags_config.json").write_text(json.dumps(settings))
    return path
