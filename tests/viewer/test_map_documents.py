"""The map of a slide as a document, decoded as a browser does."""

import base64
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from e2e_abmilx.heatmaps.case_map import SlideMap
from e2e_abmilx.viewer.map_documents import EXTREMES, map_document, patch_numbers


def _decode(text: str, kind: str) -> NDArray:
    return np.frombuffer(base64.b64decode(text), kind)


def _map(heads: NDArray, contribution: NDArray | None = None) -> SlideMap:
    """A map of 40 fine patches and the others coarse, mixed."""
    count = heads.shape[1]
    scale = np.random.default_rng(1).permutation(np.arange(count) >= min(40, count))
    grid = np.stack([np.arange(count) % 10, np.arange(count) // 10], axis=1) * 64
    rank = np.empty(count, np.int64)
    rank[np.argsort(-heads.mean(axis=0), kind="stable")] = np.arange(1, count + 1)
    return SlideMap(
        "s",
        "/s.zarr",
        (700, 700),
        0.5,
        (0.5, 1.0),
        (64.0, 128.0),
        grid,
        scale.astype(np.int64),
        heads,
        contribution,
        rank,
    )


def test_every_number_comes_back() -> None:
    generator = np.random.default_rng(0)
    one = _map(generator.gamma(0.3, 3, (2, 60)).astype(np.float32), generator.normal(size=60).astype(np.float32))
    document = json.loads(json.dumps(map_document(one, "risk", "p/{scale}_{patch}.jpg"), allow_nan=False))
    names = [(layer["name"], layer["unit"], layer["kind"]) for layer in document["layers"]]
    assert names == [
        ("mean attention", "× uniform", "sequential"), ("head 1", "× uniform", "sequential"),
        ("head 2", "× uniform", "sequential"), ("contribution to risk", "", "diverging"),
    ]  # fmt: skip
    truth = np.stack([one.mean(), *one.heads, one.contribution])
    for number, scale in enumerate(document["scales"]):
        here = one.scale == number
        assert (scale["mpp"], scale["footprint"], scale["count"]) == (
            one.scales[number],
            one.footprints[number],
            here.sum(),
        )
        assert np.array_equal(_decode(scale["coords"], "<i4").reshape(-1, 2), one.coords[here])
        assert np.array_equal(_decode(scale["rank"], "<i4"), one.rank[here])
        for values, layer, text in zip(truth, document["layers"], scale["layers"], strict=True):
            assert _decode(text, "<f2").astype(float) * layer["factor"] == pytest.approx(
                values[here], rel=1e-3, abs=1e-9
            )
        cells = np.concatenate([_decode(sheet["patches"], "<i4") for sheet in scale["sheets"]])
        assert sorted(cells[cells >= 0]) == list(range(here.sum()))
        for sheet in scale["sheets"]:
            assert len(_decode(sheet["patches"], "<i4")) == sheet["rows"] * sheet["columns"]


def test_one_patch_with_all_attention_hides_no_other() -> None:
    heads = np.full((1, 100_000), 1e-3, np.float32)
    heads[0, 7] = 100_000
    document = map_document(_map(heads), None, "")
    factor = document["layers"][0]["factor"]
    values = np.concatenate([_decode(scale["layers"][0], "<f2") for scale in document["scales"]]).astype(float) * factor
    assert np.isfinite(values).all()
    assert values.max() == pytest.approx(100_000, rel=1e-3)
    assert values.min() == pytest.approx(1e-3, rel=0.1)
    assert len(document["layers"]) == 1  # a single head is the mean


def test_zeros_stay_zeros() -> None:
    document = map_document(_map(np.zeros((2, 50), np.float32), np.zeros(50, np.float32)), None, "")
    assert {layer["factor"] for layer in document["layers"]} == {1.0}
    assert all(not _decode(text, "<f2").any() for scale in document["scales"] for text in scale["layers"])


def test_what_is_unknown_is_no_zero() -> None:
    contribution = np.linspace(-2, 2, 50, dtype=np.float32)
    contribution[[3, 7]] = np.nan, np.inf
    one = _map(np.ones((2, 50), np.float32), contribution)
    document = map_document(one, None, "")
    factor = document["layers"][-1]["factor"]
    for number, scale in enumerate(document["scales"]):
        expected = np.where(np.isfinite(contribution), contribution, np.nan)[one.scale == number]
        np.testing.assert_allclose(_decode(scale["layers"][-1], "<f2") * factor, expected, rtol=1e-3)
    nothing = map_document(_map(np.ones((2, 50), np.float32), np.full(50, np.nan, np.float32)), None, "")
    assert np.isnan(_decode(nothing["scales"][0]["layers"][-1], "<f2")).all()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 23, 24, 60])
def test_the_highest_and_the_lowest(count: int) -> None:
    one = _map(np.random.default_rng(count).random((1, count)).astype(np.float32))
    document = map_document(one, None, "p/{scale}_{patch}.jpg")
    numbers = patch_numbers(one)
    ranks = {(int(one.scale[patch]), int(numbers[patch])): int(one.rank[patch]) for patch in range(count)}
    found = {name: [ranks[each["scale"], each["patch"]] for each in document[name]] for name in ("highest", "lowest")}
    most = min(EXTREMES, (count + 1) // 2)
    assert found["highest"] == list(range(1, most + 1))
    assert found["lowest"] == list(range(count, count - min(most, count - most), -1))
    assert all(each["url"] == f"p/{each['scale']}_{each['patch']}.jpg" for each in document["highest"])
