"""What a heatmap shows as an OME-Zarr image of the slide's extent, for viewers that lay images over each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from e2e_abmilx.heatmaps.attention import SlideAttention
from e2e_abmilx.heatmaps.colours import Colouring, Kind
from e2e_abmilx.heatmaps.raster import Raster

_CHUNK = 512  # pixels
_ZLIB: Mapping[str, Any] = {"id": "zlib", "level": 1}  # the one compression that every reader of zarr 2 has
_SMALLEST = 128  # pixels along the shorter side of the last level


def write_ome_zarr(attention: SlideAttention, path: Path, *, kind: Kind = "attention") -> None:
    """Write an OME-Zarr 0.4 image: float32, a channel for each plane of :class:`Colouring` of each scale.

    Version 0.4, on zarr 2 with zlib, is what QuPath, napari and OMERO all read today. The first level has the
    thumbnail's pixels, so that a patch is a few pixels wide; every level is painted from the patches
    themselves. Its scale and translation, in µm, lay it over the whole slide, bounds or not, which the metadata say
    under ``e2e_abmilx``. 0 is where no patch lies.

    Args:
        attention: Of the slide.
        path: Folder to make.
        kind: What the numbers are.

    Raises:
        HeatmapError: Contributions are asked for and not there.
    """
    thumbnail = attention.store.thumbnail()
    assert thumbnail is not None  # check_drawable saw to it
    colouring = Colouring.of(attention, kind)
    shapes = _shapes(*thumbnail.shape[:2])
    names = colouring.names
    scales = attention.present_scales
    labels = [f"{name}, {attention.store.scales[scale]:g} µm/px" for scale in scales for name in names]
    root = zarr.create_group(path, zarr_format=2, attributes=_metadata(attention, colouring, shapes, labels))
    for level, shape in enumerate(shapes):
        array = root.create_array(
            str(level),
            shape=(len(labels), *shape),
            chunks=(1, _CHUNK, _CHUNK),
            dtype="float32",
            fill_value=0,
            compressors=_ZLIB,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        for block, scale in enumerate(scales):
            here = attention.scale == scale
            raster = Raster(attention.coords[here], attention.footprint(scale), attention.slide_size, shape)
            for plane, values in enumerate(colouring.values[:, here]):
                array[block * len(names) + plane] = np.nan_to_num(raster.paint(values))


def _shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of each level, each half the one before."""
    shapes = [(height, width)]
    while min(shapes[-1]) >= 2 * _SMALLEST:
        shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
    return shapes


def _metadata(
    attention: SlideAttention, colouring: Colouring, shapes: list[tuple[int, int]], labels: list[str]
) -> dict[str, Any]:
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    levels = [
        {"path": str(level), "coordinateTransformations": _placement(attention, shape)}
        for level, shape in enumerate(shapes)
    ]
    window = {
        "start": colouring.norm.vmin,
        "end": colouring.norm.vmax,
        "min": min(0.0, float(colouring.values.min())),
        "max": float(colouring.values.max()),
    }
    return {
        "e2e_abmilx": {
            "slide": attention.store.name,
            "origin": [0, 0],
            "openslide_bounds": attention.store.attributes.get("slide_bounds"),
            "about": "the image covers the whole slide from its first pixel of level 0, also what lies outside of its bounds",
        },
        "multiscales": [
            {
                "version": "0.4",
                "name": f"{attention.store.name}: {' '.join(colouring.label.split())}",
                "axes": [{"name": "c", "type": "channel"}, *space],
                "datasets": levels,
            }
        ],
        "omero": {
            "channels": [
                {"label": label, "color": "FFFF00", "window": window, "active": number == 0}
                for number, label in enumerate(labels)
            ]
        },
    }


def _placement(attention: SlideAttention, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """µm per pixel, and how far the first pixel's centre lies from the centre of the slide's first."""
    width, height = attention.slide_size
    scale = [height / shape[0] * attention.slide_mpp, width / shape[1] * attention.slide_mpp]
    translation = [(step - attention.slide_mpp) / 2 for step in scale]
    return [
        {"type": "scale", "scale": [1.0, *scale]},
        {"type": "translation", "translation": [0.0, *translation]},
    ]
