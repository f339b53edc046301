"""OME-Zarr: a heatmap as a multi-resolution image of the whole slide, for viewers that overlay images."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from e2e_abmilx.heatmaps.attention import SlideAttention
from e2e_abmilx.heatmaps.colours import Colouring, Kind
from e2e_abmilx.heatmaps.raster import Raster

_LEAST_SIDE = 128  # of the last level, pixels
_ARRAY: dict[str, Any] = {
    "dtype": "float32",
    "chunks": (1, 512, 512),
    "fill_value": 0,
    "compressors": {"id": "zlib", "level": 1},  # the only compression that every reader of zarr 2 supports
    "chunk_key_encoding": {"name": "v2", "separator": "/"},
}


def write_ome_zarr(attention: SlideAttention, path: Path, *, kind: Kind = "attention") -> None:
    """Write an OME-Zarr 0.4 image in float32, with one channel per scale and plane of :class:`Colouring`.

    Version 0.4, on zarr 2 with zlib, is what QuPath, napari and OMERO all read today. The first level has the
    size of the thumbnail, so that a patch is a few pixels wide; every level is painted from the patches
    themselves. Scale and translation, in µm, place the image over the whole slide, not over its bounds; the
    attribute ``e2e_abmilx`` states this. Pixels without a patch are 0.

    Args:
        attention: Attention of the slide.
        path: Folder to write.
        kind: Meaning of the numbers.

    Raises:
        HeatmapError: The kind is ``"contribution"`` and the contributions are unknown.
    """
    thumbnail = attention.store.thumbnail()
    assert thumbnail is not None  # check_drawable has refused stores without one
    colouring = Colouring.from_attention(attention, kind)
    shapes = _shapes(*thumbnail.shape[:2])
    root = zarr.create_group(path, zarr_format=2, attributes=_metadata(attention, colouring, shapes))
    planes, scales = len(colouring.names), attention.present_scales
    for level, shape in enumerate(shapes):
        array = root.create_array(str(level), shape=(len(scales) * planes, *shape), **_ARRAY)
        for block, scale in enumerate(scales):
            here = attention.scale == scale
            raster = Raster(attention.coords[here], attention.footprint(scale), attention.slide_size, shape)
            for plane, values in enumerate(colouring.values[:, here]):
                array[block * planes + plane] = np.nan_to_num(raster.paint(values))


def _shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return height and width of each level; each level is half as large as the previous one."""
    shapes = [(height, width)]
    while min(shapes[-1]) >= 2 * _LEAST_SIDE:
        shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
    return shapes


def _metadata(attention: SlideAttention, colouring: Colouring, shapes: list[tuple[int, int]]) -> dict[str, Any]:
    store = attention.store
    scales = [f"{store.scales[scale]:g} µm/px" for scale in attention.present_scales]
    labels = [f"{name}, {scale}" for scale in scales for name in colouring.names]
    window = {
        "start": colouring.norm.vmin,
        "end": colouring.norm.vmax,
        "min": min(0.0, float(colouring.values.min())),
        "max": float(colouring.values.max()),
    }
    image = {
        "version": "0.4",
        "name": f"{store.name}: {' '.join(colouring.label.split())}",
        "axes": [
            {"name": "c", "type": "channel"},
            *({"name": name, "type": "space", "unit": "micrometer"} for name in "yx"),
        ],
        "datasets": [_level(attention, str(level), shape) for level, shape in enumerate(shapes)],
    }
    channels = [
        {"label": label, "color": "FFFF00", "window": window, "active": number == 0}
        for number, label in enumerate(labels)
    ]
    about = "the image covers the whole slide from its first pixel of level 0, also what lies outside of its bounds"
    bounds = store.attributes.get("slide_bounds")
    return {
        "e2e_abmilx": {"slide": store.name, "origin": [0, 0], "openslide_bounds": bounds, "about": about},
        "multiscales": [image],
        "omero": {"channels": channels},
    }


def _level(attention: SlideAttention, path: str, shape: tuple[int, int]) -> dict[str, Any]:
    """Describe a level: µm per pixel, and the distance of its first pixel's centre from that of the slide's."""
    width, height = attention.slide_size
    scale = [height / shape[0] * attention.slide_mpp, width / shape[1] * attention.slide_mpp]
    translation = [(step - attention.slide_mpp) / 2 for step in scale]
    steps = {"scale": [1.0, *scale], "translation": [0.0, *translation]}
    return {"path": path, "coordinateTransformations": [{"type": name, name: values} for name, values in steps.items()]}
