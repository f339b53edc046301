"""Files as other tools write them, for the tests of imports."""

import io
import pickle
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
from PIL import Image

P = 32


def picture(seed: int, side: int = P) -> np.ndarray:
    """A smooth coloured patch."""
    y, x = np.mgrid[:side, :side] / side
    phase = np.random.default_rng(seed).random((3, 3)) * 2
    waves = np.sin(3 * x[..., None] * phase[0] + 3 * y[..., None] * phase[1] + phase[2])
    return np.uint8(128 + 100 * waves)


def jpeg(seed: int, side: int = P, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed, side)).save(file, "JPEG", quality=80, **options)
    return file.getvalue()


def write_lmdb(path: Path, slides: dict[str, list[bytes]], extra: dict[str, bytes] | None = None) -> Path:
    """A database as the authors write it; ``extra`` replaces values, and an empty one removes its key."""
    keys = [f"{slide}-{i}".encode() for slide, jpegs in slides.items() for i in range(len(jpegs))]
    values = dict(zip(keys, (pickle.dumps(value) for values in slides.values() for value in values), strict=True))
    values |= {
        b"__keys__": pickle.dumps(keys),
        b"__len__": pickle.dumps(len(keys)),
        b"__slide__": pickle.dumps(list(slides)),
        b"__pn__": pickle.dumps({slide: len(jpegs) for slide, jpegs in slides.items()}),
    }
    values |= {key.encode(): value for key, value in (extra or {}).items()}
    with (
        lmdb.open(str(path), subdir=False, map_size=2**26, lock=False) as database,
        database.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            if value:
                transaction.put(key, value)
    return path


def write_trident(path: Path, coords: np.ndarray, *, drop: str = "", **changed: object) -> Path:
    """64 px patches at 10x of a 20x slide, each 128 level-0 pixels."""
    attributes = {
        "patch_size": 64,
        "patch_size_level0": 128,
        "level0_magnification": 20,
        "target_magnification": 10,
        "overlap": 0,
        "name": path.stem.removesuffix("_patches"),
        "savetodir": str(path.parent),
        "level0_width": 1024,
        "level0_height": 1024,
    } | changed
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        table = file.create_dataset(
            "coords", data=coords, chunks=(1, 2) if coords[..., 0].size and coords.ndim == 2 else None
        )
        table.attrs.update({key: value for key, value in attributes.items() if key != drop})
    return path


def write_clam(path: Path, coords: np.ndarray, *, level: int = 1, **changed: object) -> Path:
    """64 px patches of a level of a slide whose levels halve."""
    factor, side = float(2**level), 1024 // 2**level
    attributes = {
        "patch_size": 64,
        "patch_level": level,
        "downsample": (factor, factor),
        "downsampled_level_dim": (side, side),
        "level_dim": (side, side),
        "name": path.stem,
        "save_path": str(path.parent),
    } | changed
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=coords.astype(np.int32)).attrs.update(attributes)
    return path


def lattice(stride: int, count: int = 5, first: tuple[int, int] = (150, 203)) -> np.ndarray:
    x, y = np.meshgrid(first[0] + stride * np.arange(count), first[1] + stride * np.arange(count))
    return np.stack([x.ravel(), y.ravel()], axis=1)
