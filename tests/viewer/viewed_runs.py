"""Runs to be looked at: real slides and stores, made-up predictions and attention."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from hand_written import classified, write_run
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.case_map import CaseMap, SlideMap, write_case_map
from e2e_abmilx.store import PatchStore

WEIRD = [
    '"quoted" <b>&amp;</b>',
    "100 % #1 ?x=1",
    "Größe 染色 …",
    "</script><script>alert(1)</script>",
    "../../etc/passwd",
]


def copy_data(folder: Path, cohort: Path, stores: Path, slides: Mapping[str, str]) -> Path:
    """Copy slides and stores under other names into ``folder/slides`` and ``folder/cache``; return the folder."""
    (folder / "slides").mkdir(parents=True)
    for name, original in slides.items():
        shutil.copy(cohort / "slides" / f"{original}.tiff", folder / "slides" / f"{name}.tiff")
        shutil.copytree(stores / f"{original}.zarr", folder / "cache" / f"{name}.zarr")
    return folder


def write_viewed_run(
    folder: Path,
    data: Path,
    cases: Mapping[str, Sequence[str]],
    *,
    mapped: bool = True,
    predictions: pd.DataFrame | None = None,
) -> Path:
    """Write a run on ``data/slides`` and ``data/cache`` with these cases and their slides; return its folder."""
    table = pd.DataFrame([(case, slide, "0") for case, slides in cases.items() for slide in slides])
    table.columns = ["case", "slide", "label"]
    labels = folder.with_name(f"{folder.name}.csv")
    labels.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(labels, index=False)
    settings = {"cache": str(data / "cache"), "slides": str(data / "slides"), "labels": str(labels)}
    if predictions is None:
        predictions = classified(list(cases), ["0", "1"], seed=0)
    write_run(folder, predictions, data=settings)
    for number, (case, slides) in enumerate(cases.items()):
        if mapped:
            write_case_map(folder, map_case(case, [data / "cache" / f"{slide}.zarr" for slide in slides], seed=number))
    return folder


def map_case(case: str, stores: Sequence[Path], *, seed: int) -> CaseMap:
    """Return a map with random attention of three heads to all patches of these stores."""
    generator = np.random.default_rng(seed)
    opened = [PatchStore(path) for path in stores]
    sizes = [sum(store.num_patches(scale) for scale in range(len(store.scales))) for store in opened]
    heads = generator.gamma(0.5, 1, (3, sum(sizes))).astype(np.float32)
    heads *= sum(sizes) / heads.sum(axis=1, keepdims=True)
    contribution = generator.normal(size=sum(sizes)).astype(np.float32)
    rank = np.empty(sum(sizes), np.int64)
    rank[np.argsort(-heads.mean(axis=0), kind="stable")] = np.arange(1, sum(sizes) + 1)
    slides, start = [], 0
    for store, size in zip(opened, sizes, strict=True):
        own = slice(start, start + size)
        slides.append(_map_slide(store, heads[:, own], contribution[own], rank[own]))
        start += size
    return CaseMap(case, "log-odds of 1", tuple(slides))


def _map_slide(store: PatchStore, heads: NDArray, contribution: NDArray, rank: NDArray) -> SlideMap:
    numbers = range(len(store.scales))
    return SlideMap(
        slide=store.name,
        store=str(store.path.absolute()),
        size=tuple(store.attributes["slide_size"]),
        mpp=store.attributes["slide_mpp"],
        scales=store.scales,
        footprints=tuple(store.attributes["footprints"]),
        coords=np.concatenate([store.coords(scale) for scale in numbers]),
        scale=np.concatenate([np.full(store.num_patches(scale), scale) for scale in numbers]),
        heads=heads,
        contribution=contribution,
        rank=rank,
        fingerprint=store.attributes.get("fingerprint"),
    )


def write_pyramid(path: Path, pixels: NDArray[np.uint8], levels: Sequence[int] = (1, 2, 4)) -> Path:
    """Write a lossless tiled TIFF with a level for each downsample."""
    with tifffile.TiffWriter(path) as tiff:
        for number, downsample in enumerate(levels):
            height, width = (side // downsample * downsample for side in pixels.shape[:2])
            blocks = pixels[:height, :width].reshape(
                height // downsample, downsample, width // downsample, downsample, 3
            )
            tiff.write(
                blocks.mean(axis=(1, 3)).round().astype(np.uint8),
                photometric="rgb",
                tile=(128, 128),
                compression="zlib",
                resolution=(2e4 / downsample,) * 2,
                resolutionunit="CENTIMETER",
                subifds=len(levels) - 1 if number == 0 else 0,
                subfiletype=0 if number == 0 else 1,
                metadata=None,
            )
    return path


def draw_texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return smooth random colours with some noise, shape ``(height, width, 3)``."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / p + a) + np.sin(y / q + b) for p, q, a, b in generator.uniform(5, 60, (3, 4))]
    return np.clip(128 + 50 * np.stack(waves, axis=-1) + generator.normal(0, 5, (height, width, 3)), 0, 255).astype(
        np.uint8
    )
