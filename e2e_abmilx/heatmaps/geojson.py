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

    Args:
        attention: Of the slide.
        path: File to write.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        file.writelines(
            f"{',' if number else ''}{json.dumps(feature, ensure_ascii=False)}\n"
            for number, feature in enumerate(_features(attention))
        )
        file.write("]}\n")


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
    left, top = corner
    width, height = attention.slide_size
    side = attention.footprint(scale)
    right, bottom = _short(min(left + side, width)), _short(min(top + side, height))
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def _short(value: float) -> float:
    """Eight digits: the coordinates of the largest slides to a hundredth of a pixel, and half the bytes."""
    return float(f"{value:.8g}")
