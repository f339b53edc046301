import json
from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.heatmaps import SlideAttention, write_geojson


def test_geojson_has_one_square_per_patch_inside_the_slide(attention: SlideAttention, tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    write_geojson(attention, tmp_path / "patches.geojson")
    collection = json.loads((tmp_path / "patches.geojson").read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    slide = shapely.box(0, 0, *attention.slide_size)
    assert len(collection["features"]) == len(attention.coords)
    for number, feature in enumerate(collection["features"]):
        square = shapely.geometry.shape(feature["geometry"])
        scale = int(attention.scale[number])
        assert square.is_valid
        assert slide.covers(square)
        assert square.bounds[:2] == tuple(attention.coords[number])
        assert square.area == pytest.approx(attention.footprint(scale) ** 2, rel=1e-3)
        assert json.loads(shapely.to_geojson(square)) == feature["geometry"]
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert properties["classification"] == {"name": f"patch at {attention.store.scales[scale]:g} µm/px"}
        assert list(properties["measurements"].values()) == pytest.approx(
            [attention.mean()[number], *attention.heads[:, number], attention.rank()[number]], rel=1e-6
        )


def test_geojson_has_contributions_next_to_attention(contributing: SlideAttention, tmp_path: Path) -> None:
    write_geojson(contributing, tmp_path / "patches.geojson")
    features = json.loads((tmp_path / "patches.geojson").read_text(encoding="utf-8"))["features"]
    measured = [feature["properties"]["measurements"] for feature in features]
    name = "contribution to the log-odds of tumour (with the patch minus without it)"
    np.testing.assert_allclose([one.pop(name) for one in measured], contributing.known_contribution().values, rtol=1e-7)
    assert [one["attention, rank (1 = highest)"] for one in measured] == contributing.rank().tolist()
    assert len(measured[0]) == 5
