"""Patches as objects that QuPath opens, and with it anything that reads GeoJSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.attention import SlideAttention


def write_geojson(attention: SlideAttention, path: Path) -> None:
    """Write one feature collection: a square in level-0 pixels for each patch, with measurements.

    A patch is a *tile* in QuPath's words and of a class named after its µm/px, so that the tiles of a scale
    can be hidden. *Measure → Show measurement maps* colours them.

    Coordinates count from the corner that QuPath counts from. That is not the slide's where it states bounds, as MIRAX
    and Leica slides do: then level-0 coordinates of the whole slide are these plus ``origin``, a member of
    ``e2e_abmilx`` beside the features, ``[0, 0]`` for other slides.

    Args:
        attention: Of the slide.
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
    """What coordinates count, and from where, as a member that readers of GeoJSON pass over."""
    attributes = attention.store.attributes
    about = "coordinates are level-0 pixels from the corner of the whole slide, which is QuPath's too"
    if any(attention.qupath_origin):
        about = (
            "coordinates are level-0 pixels from the corner of the slide's openslide.bounds, to which QuPath crops it;"
            " add origin for level-0 coordinates of the whole slide, which QuPath shows where it is opened with --no-crop"
        )
    elif "slide_bounds" not in attributes:
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


def _measurements(attention: SlideAttention) -> dict[str, NDArray[np.floating] | NDArray[np.int64]]:
    """By their names, each of shape ``(N,)``."""
    heads = {
        f"attention, head {number} (× uniform)": head for number, head in enumerate(attention.heads, start=1)
    }
    measured = {
        "attention, mean of heads (× uniform)": attention.mean(),
        **heads,
        "attention, rank (1 = highest)": attention.rank(),
    }
    if attention.contribution is None:
        return measured
    name = f"contribution to the {attention.contribution.score} (with the patch minus without it)"
    return {**measured, name: attention.contribution.values}


def _square(attention: SlideAttention, corner: list[int], scale: int) -> list[list[float]]:
    """The five corners of a patch, the first again at the end; inside the slide, whatever was rounded."""
    width, height = attention.slide_size
    x, y = attention.qupath_origin
    side = attention.footprint(scale)
    left, top = corner[0] - x, corner[1] - y
    right, bottom = _short(min(left + side, width - x)), _short(min(top + side, height - y))
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def _short(value: float) -> float:
    """Eight digits: the coordinates of the largest slides to a hundredth of a pixel, and half the bytes."""
    return float(f"{value:.8g}")
