"""GeoJSON: the patches of a slide as tiles with measurements, for QuPath and other readers of GeoJSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.attention import SlideAttention


def write_geojson(attention: SlideAttention, path: Path) -> None:
    """Write a feature collection: one square per patch, in level-0 pixels, with measurements.

    In QuPath a patch is a *tile*. Its class is named after its µm/px, so that the tiles of a scale can be hidden.
    *Measure → Show measurement maps* colours them.

    Coordinates count from QuPath's origin. If the slide states bounds, as MIRAX and Leica slides do, this is the
    corner of the bounds and not of the slide. The member ``e2e_abmilx`` of the file holds this ``origin``, which is
    ``[0, 0]`` for other slides: adding it gives level-0 coordinates of the whole slide.

    Args:
        attention: Attention of the slide.
        path: File to write.
    """
    with open(path, "w", encoding="utf-8") as file:
        origin = json.dumps(_origin(attention), ensure_ascii=False)
        file.write(f'{{"type": "FeatureCollection", "e2e_abmilx": {origin}, "features": [\n')
        file.writelines(
            f"{',' if number else ''}{json.dumps(feature, ensure_ascii=False)}\n"
            for number, feature in enumerate(_features(attention))
        )
        file.write("]}\n")


def _origin(attention: SlideAttention) -> dict[str, object]:
    """Describe the unit and the origin of the coordinates, in a member that readers of GeoJSON ignore."""
    about = "coordinates are level-0 pixels from the corner of the whole slide, which is QuPath's too"
    if any(attention.qupath_origin):
        about = (
            "coordinates are level-0 pixels from the corner of the slide's openslide.bounds, to which QuPath crops it;"
            " add origin for level-0 coordinates of the whole slide, which QuPath shows where it is opened with --no-crop"
        )
    elif "slide_bounds" not in attention.store.attributes:
        about = (
            "coordinates are level-0 pixels from the corner of the whole slide; the cache does not know whether the slide"
            " states openslide.bounds, to which QuPath would crop it: then open it with --no-crop, or cache it again"
        )
    return {
        "slide": attention.store.name,
        "unit": "pixel of level 0",
        "origin": attention.qupath_origin,
        "about": about,
    }


def _features(attention: SlideAttention) -> Iterator[dict[str, object]]:
    measured = _measurements(attention)
    rows = np.stack(list(measured.values()), axis=1).tolist()
    for corner, scale, row in zip(attention.coords.tolist(), attention.scale.tolist(), rows, strict=True):
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [_square(attention, corner, scale)]},
            "properties": {
                "objectType": "tile",
                "classification": {"name": f"patch at {attention.store.scales[scale]:g} µm/px"},
                "measurements": {name: _short(value) for name, value in zip(measured, row, strict=True)},
            },
        }


def _measurements(attention: SlideAttention) -> dict[str, NDArray[Any]]:
    """Return the measurements by name, each of shape ``(N,)``."""
    measured: dict[str, NDArray[Any]] = {"attention, mean of heads (× uniform)": attention.mean()}
    for number, head in enumerate(attention.heads, start=1):
        measured[f"attention, head {number} (× uniform)"] = head
    measured["attention, rank (1 = highest)"] = attention.rank()
    if attention.contribution is not None:
        name = f"contribution to the {attention.contribution.score} (with the patch minus without it)"
        measured[name] = attention.contribution.values
    return measured


def _square(attention: SlideAttention, corner: list[int], scale: int) -> list[list[float]]:
    """Return the four corners of a patch and again the first, clipped to the slide because sizes are rounded."""
    width, height = attention.slide_size
    x, y = attention.qupath_origin
    side = attention.footprint(scale)
    left, top = corner[0] - x, corner[1] - y
    right, bottom = _short(min(left + side, width - x)), _short(min(top + side, height - y))
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def _short(value: float) -> float:
    """Round to eight digits: a hundredth of a pixel on the largest slides, and half the bytes."""
    return float(f"{value:.8g}")
