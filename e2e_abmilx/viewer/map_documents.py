"""The map of a slide as a document for the browser: arrays in base64, one entry per scale.

Letters: N patches of a scale.
"""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.case_map import SlideMap
from e2e_abmilx.heatmaps.sheets import Sheet, lay_sheets

EXTREMES = 12  # patches in each strip
_LARGEST = 32768.0  # of a layer in float16, far from both its largest (65,504) and its smallest numbers (6e-8)


def map_document(slide_map: SlideMap, score: str | None, url: str) -> dict[str, Any]:
    """Return the map of a slide.

    Args:
        slide_map: The map.
        score: Name of the score that patches contribute to.
        url: Address of the picture of a patch, with ``{scale}`` and ``{patch}``, its number in that scale.
    """
    planes = [("mean attention", "× uniform", "sequential", slide_map.mean())]
    if len(slide_map.heads) > 1:
        heads = enumerate(slide_map.heads, 1)
        planes += [(f"head {number}", "× uniform", "sequential", values) for number, values in heads]
    if slide_map.contribution is not None:
        planes.append((f"contribution to {score or 'the score'}", "", "diverging", slide_map.contribution))
    scaled = [_to_half(values) for *_, values in planes]
    layers = [
        {"name": name, "unit": unit, "kind": kind, "factor": factor}
        for (name, unit, kind, _), (_, factor) in zip(planes, scaled, strict=True)
    ]
    halves = [half for half, _ in scaled]
    numbers = range(len(slide_map.scales))
    return {
        "scales": [_scale_document(slide_map, number, halves) for number in numbers],
        "layers": layers,
        **_extremes(slide_map, url),
    }


def patch_numbers(slide_map: SlideMap) -> NDArray[np.int64]:
    """Return the number of each patch in its scale, shape ``(N,)``."""
    numbers = np.empty(len(slide_map.scale), np.int64)
    for scale in np.unique(slide_map.scale):
        here = slide_map.scale == scale
        numbers[here] = np.arange(here.sum())
    return numbers


def _scale_document(slide_map: SlideMap, number: int, layers: list[NDArray[np.float16]]) -> dict[str, Any]:
    here = slide_map.scale == number
    coords, footprint = slide_map.coords[here], slide_map.footprints[number]
    return {
        "mpp": slide_map.scales[number],
        "footprint": footprint,
        "count": int(here.sum()),
        "coords": _base64(coords, "<i4"),
        "sheets": [_sheet_document(sheet) for sheet in lay_sheets(coords, footprint)],
        "layers": [_base64(values[here], "<f2") for values in layers],
        "rank": _base64(slide_map.rank[here], "<i4"),
    }


def _sheet_document(sheet: Sheet) -> dict[str, Any]:
    rows, columns = sheet.patches.shape
    place = {"x": float(sheet.x), "y": float(sheet.y), "pitch": float(sheet.pitch)}
    return {**place, "columns": columns, "rows": rows, "patches": _base64(sheet.patches, "<i4")}


def _extremes(slide_map: SlideMap, url: str) -> dict[str, list[dict[str, Any]]]:
    """Return the patches of the slide with the highest and the lowest mean attention; none is in both lists."""
    order, numbers = np.argsort(slide_map.rank, kind="stable"), patch_numbers(slide_map)
    most = min(EXTREMES, (len(order) + 1) // 2)
    chosen = {"highest": order[:most], "lowest": order[::-1][: min(most, len(order) - most)]}

    def describe(patch: int) -> dict[str, Any]:
        scale, number = int(slide_map.scale[patch]), int(numbers[patch])
        return {"scale": scale, "patch": number, "url": url.format(scale=scale, patch=number)}

    return {name: [describe(patch) for patch in patches] for name, patches in chosen.items()}


def _to_half(values: NDArray[np.floating]) -> tuple[NDArray[np.float16], float]:
    """Return values as float16 times a factor; those that are not finite as NaN, which the page does not colour."""
    single = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    peak = float(np.nanmax(np.abs(single), initial=0))
    factor = peak / _LARGEST if peak > 0 else 1.0
    return (single / np.float32(factor)).astype(np.float16), factor


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()
