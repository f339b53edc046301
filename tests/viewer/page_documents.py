"""Exported copies for the tests of the page, written as the documents are specified, with pictures of any kind."""

import base64
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.heatmaps.sheets import lay_sheets
from e2e_abmilx.viewer.levels import TILE, num_levels, tile_box

STATIC = Path(__file__).parents[2] / "e2e_abmilx/viewer/static"
BOX = Image.Resampling.BOX


def _packed(array: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=kind).tobytes()).decode()


@dataclass
class Scale:
    """Patches of one scale: level-0 corners (N, 2), their side, and the values of each layer (L, N)."""

    coords: NDArray[np.integer]
    footprint: float
    values: NDArray[np.floating]
    mpp: float = 0.5


@dataclass
class Layer:
    """Name, unit and kind of a layer."""

    name: str = "mean attention"
    unit: str = "× uniform"
    kind: str = "sequential"


@dataclass
class Slide:
    """A slide: its picture (H, W, 3) or, for a plain white one, its size, and one map per run (scales), or None."""

    maps: Sequence[Sequence[Scale] | None]
    picture: NDArray[np.uint8] | None = None
    size: tuple[int, int] = (1024, 1024)
    layers: Sequence[Layer] = (Layer(),)
    name: str = "slide"
    mpp: float | None = 0.5
    note: str | None = None


@dataclass
class Case:
    """A case and what is said of it."""

    slides: Sequence[Slide]
    name: str = "case"
    label: str = "tumour"
    prediction: str = "normal 0.93"
    correctness: float | None = 0.07
    facts: Sequence[tuple[str, str]] = (("label", "tumour"), ("probability of normal", "0.930"))
    survival: dict[str, Any] | None = None
    note: str | None = None
    reviews: list[dict[str, str]] = field(default_factory=list)


def map_document(slide: Slide, scales: Sequence[Scale] | None, url: str) -> dict[str, Any] | None:
    """Return the document of a slide's map; ranks are those of the first layer."""
    if scales is None:
        return None
    every = np.concatenate([scale.values for scale in scales], axis=1)
    factors = np.abs(every).max(axis=1, initial=1e-12)
    order = np.argsort(-every[0], kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    first = np.cumsum([0, *(len(scale.coords) for scale in scales)])
    places = [(k, i) for k, scale in enumerate(scales) for i in range(len(scale.coords))]

    def entries(numbers: NDArray[np.integer]) -> list[dict[str, Any]]:
        return [
            {"scale": places[n][0], "patch": places[n][1], "url": f"{url}/{places[n][0]}_{places[n][1]}.jpg"}
            for n in numbers
        ]

    return {
        "scales": [
            {
                "mpp": scale.mpp, "footprint": scale.footprint, "count": len(scale.coords),
                "coords": _packed(scale.coords, "<i4"),
                "sheets": [
                    {
                        "x": sheet.x, "y": sheet.y, "pitch": sheet.pitch, "columns": sheet.patches.shape[1],
                        "rows": sheet.patches.shape[0], "patches": _packed(sheet.patches, "<i4"),
                    }
                    for sheet in lay_sheets(scale.coords, scale.footprint)
                ],
                "layers": [_packed(row / factor, "<f2") for row, factor in zip(scale.values, factors, strict=True)],
                "rank": _packed(rank[start : start + len(scale.coords)], "<i4"),
            }
            for scale, start in zip(scales, first, strict=False)
        ],
        "layers": [
            {"name": layer.name, "unit": layer.unit, "kind": layer.kind, "factor": float(factor)}
            for layer, factor in zip(slide.layers, factors, strict=True)
        ],
        "highest": entries(order[:12]),
        "lowest": entries(order[::-1][:12]),
    }  # fmt: skip


def _write_jpeg(path: Path, pixels: NDArray[np.uint8] | Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=85)
    path.write_bytes(buffer.getvalue())


def _write_tiles(folder: Path, url: str, picture: NDArray[np.uint8]) -> dict[str, Any]:
    height, width = picture.shape[:2]
    levels = num_levels((width, height))
    whole = Image.fromarray(picture)
    for level in range(levels):
        span = TILE * 2 ** (levels - 1 - level)
        for row in range(math.ceil(height / span)):
            for column in range(math.ceil(width / span)):
                box, size = tile_box((width, height), level, column, row)
                _write_jpeg(folder / f"{url}/tile/{level}_{column}_{row}.jpg", whole.resize(size, BOX, box))
    return {"kind": "tiles", "tile_size": TILE, "levels": levels, "url": f"{url}/tile/{{level}}_{{x}}_{{y}}.jpg"}


def _slide_document(folder: Path, url: str, slide: Slide) -> dict[str, Any]:
    maps = [map_document(slide, scales, f"{url}/patch") for scales in slide.maps]
    height, width = slide.picture.shape[:2] if slide.picture is not None else slide.size[::-1]
    if slide.picture is not None:
        picture = _write_tiles(folder, url, slide.picture)
    else:
        picture = {"kind": "image", "url": f"{url}/mosaic.jpg"}
        _write_jpeg(folder / f"{url}/mosaic.jpg", Image.new("RGB", (64, max(1, 64 * height // width)), "white"))
    for map_, scales in zip(maps, slide.maps, strict=True):
        for entry in [*map_["highest"], *map_["lowest"]] if map_ and scales else []:
            scale = scales[entry["scale"]]
            x, y = (int(v) for v in scale.coords[entry["patch"]])
            side = round(scale.footprint)
            cut = None if slide.picture is None else slide.picture[y : y + side, x : x + side]
            tile = np.full((32, 32, 3), 255, np.uint8) if cut is None or not cut.size else cut
            _write_jpeg(folder / entry["url"], tile)
    return {
        "name": slide.name, "note": slide.note, "width": width, "height": height, "mpp": slide.mpp, "picture": picture,
        "maps": maps,
    }  # fmt: skip


def write_export(
    folder: Path, cases: Sequence[Case], runs: Sequence[str] = ("runs/demo",), title: str = "demo"
) -> Path:
    """Write an exported copy with the cases; return the path of its page."""
    shutil.copytree(STATIC, folder / "static", dirs_exist_ok=True)
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(page.replace('data-source="server"', 'data-source="files"'), encoding="utf-8")
    (folder / "data").mkdir(exist_ok=True)
    rows = []
    for id_, case in enumerate(cases):
        slides = [_slide_document(folder, f"case/{id_}/slide/{k}", slide) for k, slide in enumerate(case.slides)]
        document = {
            "id": id_, "name": case.name, "facts": case.facts, "survival": case.survival, "note": case.note,
            "reviews": case.reviews, "slides": slides,
        }  # fmt: skip
        (folder / f"data/case-{id_}.js").write_text(f"viewerCase({json.dumps(document)})", encoding="utf-8")
        first = case.slides[0].picture if case.slides else None
        thumbnail = Image.new("RGB", (96, 96), "white") if first is None else Image.fromarray(first)
        thumbnail.thumbnail((128, 128))
        _write_jpeg(folder / f"case/{id_}/thumbnail.jpg", thumbnail)
        rows.append({
            "id": id_, "name": case.name, "label": case.label, "prediction": case.prediction,
            "correctness": case.correctness, "thumbnail": f"case/{id_}/thumbnail.jpg",
            "verdict": case.reviews[-1]["verdict"] if case.reviews else None, "has_map": bool(case.slides),
        })  # fmt: skip
    run = {
        "title": title, "task": "classification", "read_only": True, "runs": list(runs),
        "verdicts": ["agree", "disagree", "artefact", "note"], "cases": rows,
    }  # fmt: skip
    (folder / "data/run.js").write_text(f"viewerRun({json.dumps(run)})", encoding="utf-8")
    return folder / "index.html"
