"""The map of a case survives the disk, and nothing else passes for one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e_abmilx.heatmaps import CaseMap, MapError, SlideMap, case_file_name, read_case_map, write_case_map
from e2e_abmilx.heatmaps.attention import rank_of

NAMES = [
    "case 7", "a/b", "../../etc/passwd", 'say "so"', "it's", "100%", "#1", "<script>", "Fall Nr. 7", "患者-七", "naïve", "é" * 300,
    "x" * 300, "x" * 299 + "y", "CON", ".hidden", "a\\b", "line\nbreak", "nul\0byte", "\udcff", "", "Case 7",
]  # fmt: skip


def _slide(name: str = "slide-001", count: int = 50, *, heads: int = 3, seed: int = 0) -> SlideMap:
    random = np.random.default_rng(seed)
    weights = random.exponential(size=(heads, count)).astype(np.float32)
    return SlideMap(
        slide=name,
        store=f"/caches/demo/{name}.zarr",
        size=(20_000, 10_001),
        mpp=0.2527,
        scales=(0.5, 1.0),
        footprints=(506.6, 1013.2),
        coords=random.integers(0, 10_000, (count, 2)),
        scale=random.integers(0, 2, count),
        heads=weights,
        contribution=(random.normal(size=count) / 1000).astype(np.float32),
        rank=rank_of(weights.mean(axis=0)),
    )


def _check_same(found: SlideMap, written: SlideMap) -> None:
    for name in ("slide", "store", "size", "mpp", "scales", "footprints"):
        assert getattr(found, name) == getattr(written, name)
    for name in ("coords", "scale", "rank"):
        assert getattr(found, name).dtype == np.int64
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
    for row, expected in zip(found.heads, written.heads, strict=True):
        np.testing.assert_allclose(row, expected, rtol=2**-11, atol=1e-12 * np.abs(expected).max(initial=0))
    if written.contribution is None:
        assert found.contribution is None
    else:
        limit = 1e-12 * np.abs(written.contribution).max(initial=0)
        np.testing.assert_allclose(found.contribution, written.contribution, rtol=2**-11, atol=limit)


def test_round_trip(tmp_path: Path) -> None:
    slides = (
        replace(_slide(), fingerprint="0123456789abcdef"),
        replace(_slide("slide-002", 7, seed=1), contribution=None),
        _slide("leer", 0),
    )
    written = CaseMap("case 7", "log-odds of tumour", slides)
    path = write_case_map(tmp_path, written)
    assert path.parent == tmp_path / "attention"
    found = read_case_map(tmp_path, "case 7")
    assert (found.case, found.score, len(found.slides)) == ("case 7", "log-odds of tumour", 3)
    assert [one.fingerprint for one in found.slides] == ["0123456789abcdef", None, None]
    for one, other in zip(found.slides, slides, strict=True):
        _check_same(one, other)
    np.testing.assert_allclose(found.slides[0].mean(), slides[0].heads.mean(axis=0), rtol=1e-3)
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # no partial file is left


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(
        st.lists(st.floats(0, 2.0**100, width=32, allow_subnormal=True), min_size=4, max_size=4), min_size=1, max_size=3
    )
)
def test_precision_of_any_weights(tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]) -> None:
    folder = tmp_path_factory.mktemp("maps")
    written = replace(_slide(count=4), heads=np.array(rows, np.float32))
    write_case_map(folder, CaseMap("c", None, (written,)))
    _check_same(read_case_map(folder, "c").slides[0], written)


def test_one_patch_with_all_attention_of_100000(tmp_path: Path) -> None:
    """It overflows float16 itself, and must not push the attention of the others to zero."""
    heads = np.full((2, 100_000), 1e-3, np.float32)
    heads[0, 77] = 100_000
    heads[1] = 0
    slide = replace(
        _slide(), coords=np.zeros((100_000, 2), np.int64), scale=np.zeros(100_000, np.int64), heads=heads,
        contribution=None, rank=np.arange(1, 100_001),
    )  # fmt: skip
    write_case_map(tmp_path, CaseMap("c", None, (slide,)))
    found = read_case_map(tmp_path, "c").slides[0]
    assert found.heads[0, 77] == pytest.approx(100_000, rel=1e-3)
    assert found.heads[0, 0] == pytest.approx(1e-3, rel=1e-3)
    assert not found.heads[1].any()


def test_values_that_are_no_numbers_stay_so(tmp_path: Path) -> None:
    contribution = np.array([np.nan, np.inf, -np.inf, 2.0, -1.0], np.float32)
    slide = replace(_slide(count=5), contribution=contribution)
    write_case_map(tmp_path, CaseMap("c", "risk", (slide,)))
    np.testing.assert_allclose(read_case_map(tmp_path, "c").slides[0].contribution, contribution, rtol=1e-3)


def test_a_map_of_another_prediction_is_refused(tmp_path: Path) -> None:
    scores = {"probability_x": 0.123456789, "risk": -2.0}
    write_case_map(tmp_path, CaseMap("c", None, (_slide(),), scores))
    rounded = {"case": "c", "probability_x": 0.123457, "risk": -2.0}
    assert read_case_map(tmp_path, "c", rounded).predicted == scores
    read_case_map(tmp_path, "c", {"probability_x": 0.123456789})  # the risk is not in the table
    with pytest.raises(MapError, match=r"of another prediction than .*risk of case 'c' is -2 there and -2\.1 here"):
        read_case_map(tmp_path, "c", {**rounded, "risk": -2.1})


def test_far_coordinates(tmp_path: Path) -> None:
    slide = replace(_slide(count=2), coords=np.array([[2**31 - 1, 2**31], [2**40, 0]]))
    write_case_map(tmp_path, CaseMap("c", None, (slide,)))
    np.testing.assert_array_equal(read_case_map(tmp_path, "c").slides[0].coords, slide.coords)


def test_any_name_of_a_case(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        path = write_case_map(tmp_path, CaseMap(name, None, (_slide(count=number),)))
        assert path.parent == tmp_path / "attention"
        assert path.name.isascii()
        assert len(path.name) < 100
    files = {case_file_name(name).lower() for name in NAMES}
    assert len(files) == len(NAMES)  # also where the file system ignores case
    for number, name in enumerate(NAMES):
        found = read_case_map(tmp_path, name)
        assert found.case == name
        assert len(found.slides[0].coords) == number
    assert case_file_name("case 7").startswith("case_7-")


def test_missing_map_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"no attention of case 'case 7' is stored in .*predict its cases again"):
        read_case_map(tmp_path, "case 7")
    run = tmp_path / "my run"
    (run / "test").mkdir(parents=True)
    (run / "fit.yaml").touch()
    command = f"`e2e-abmilx test --config '{run}/fit.yaml' --ckpt_path '{run}/best.ckpt'`"
    for folder in (run, run / "test"):
        with pytest.raises(MapError, match="my run") as caught:
            read_case_map(folder, "case 7")
        assert command in str(caught.value)
        assert str(run / "test" / "attention") in str(caught.value)
        assert str(caught.value).endswith(f"for `e2e-abmilx view --run '{run}/test'`")


def test_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """A flipped byte either changes nothing or is refused: never other values."""
    written = CaseMap("c", "risk", (_slide(count=20),))
    path = write_case_map(tmp_path, written)
    good = read_case_map(tmp_path, "c").slides[0]
    data = path.read_bytes()
    refused = 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            found = read_case_map(tmp_path, "c").slides[0]
        except MapError:
            refused += 1
        else:
            _check_same(found, good)
    assert refused > len(data) / 2


def test_cut_off_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = write_case_map(tmp_path, CaseMap("c", None, (_slide(),)))
    data = path.read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(MapError, match="is damaged or is no map"):
            read_case_map(tmp_path, "c")
    np.savez(path.open("wb"), weights=np.zeros(3))
    with pytest.raises(MapError, match="is damaged or is no map"):
        read_case_map(tmp_path, "c")
    np.savez(path.open("wb"), header=np.array([{"version": 1}], dtype=object))  # a pickle
    with pytest.raises(MapError, match="is damaged or is no map"):
        read_case_map(tmp_path, "c")
    path.unlink()
    path.mkdir()
    with pytest.raises(MapError, match="is damaged or is no map"):
        read_case_map(tmp_path, "c")


def test_other_version_is_refused(tmp_path: Path) -> None:
    path = write_case_map(tmp_path, CaseMap("c", None, (_slide(),)))
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    arrays["header"] = np.frombuffer(json.dumps({**header, "version": 2}).encode(), np.uint8)
    np.savez(path.open("wb"), **arrays)
    with pytest.raises(MapError, match="has version 2 and this release reads 1"):
        read_case_map(tmp_path, "c")


def test_other_case_is_refused(tmp_path: Path) -> None:
    path = write_case_map(tmp_path, CaseMap("case 7", None, (_slide(),)))
    path.rename(path.with_name(case_file_name("case 8")))
    with pytest.raises(MapError, match="is of case 'case 7' and not of 'case 8'"):
        read_case_map(tmp_path, "case 8")


def test_inconsistent_maps_are_refused() -> None:
    slide = _slide()
    with pytest.raises(MapError, match="different numbers of patches"):
        replace(slide, rank=slide.rank[1:])
    with pytest.raises(MapError, match="different numbers of patches"):
        replace(slide, heads=slide.heads[:, 1:])
    with pytest.raises(MapError, match="a scale that it does not list"):
        replace(slide, scale=slide.scale + 1)
