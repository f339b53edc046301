"""Files as each tool writes them (shapes, types and attributes of its own source), whole and broken."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.data.features import FeatureError, FeatureFolder, NoPlacesError, SlideFeatures, read_features

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((9, 6)).astype(np.float32)
COORDS = RNG.integers(0, 90_000, (9, 2)) // 512 * 512


def _h5(path: Path, tables: dict[str, Any], on: dict[str, dict[str, Any]] | None = None) -> Path:
    """An HDF5 file; attributes ``on`` a table, or on the file itself ("")."""
    with h5py.File(path, "w") as file:
        for name, table in tables.items():
            file.create_dataset(name, data=table, chunks=(1, *table.shape[1:]) if table.size else None)
        for name, attributes in (on or {}).items():
            (file[name] if name else file).attrs.update(attributes)
    return path


def _trident(path: Path, features: np.ndarray = FEATURES, **attributes: Any) -> Path:
    own = {"name": "slide", "savetodir": "somewhere"}
    grid = {
        "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
        "overlap": 0, "level0_width": 100_000, "level0_height": 90_000,
    }  # fmt: skip
    on = {"features": {**own, "encoder": "None"}, "coords": {**own, **grid, **attributes}}
    return _h5(path, {"features": features, "coords": COORDS}, on)


STAMP = {
    "stamp_version": "2.4.0", "extractor": "uni2", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224,
    "code_hash": "0", "feat_type": "tile",
}  # fmt: skip


def _stamp(path: Path, um: np.ndarray, attributes: dict[str, Any], key: str = "feats") -> Path:
    features = np.resize(FEATURES, (len(um), 6)).astype(np.float16)
    return _h5(path, {key: features, "coords": um.astype(np.float32)}, {"": attributes})


def _pt(path: Path, content: object, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def _same(found: SlideFeatures, features: np.ndarray = FEATURES) -> None:
    """All features, and some of them, in float32."""
    assert (found.num_patches, found.num_features) == features.shape
    assert found.read().dtype == torch.float32
    np.testing.assert_array_equal(found.read().numpy(), features)
    np.testing.assert_array_equal(found.read(np.array([0, 3, 8])).numpy(), features[[0, 3, 8]])


def test_trident(tmp_path: Path) -> None:
    found = read_features(_trident(tmp_path / "slide.h5"))
    _same(found)
    np.testing.assert_array_equal(found.coords(), COORDS)
    assert found.coords().dtype == np.int64
    assert (found.patch_size_level0, found.mpp) == (512, 0.5)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 0, "custom_downsample": 2}, 512),
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0)}, 1024),
        ({"patch_size": 256, "patch_level": 1}, None),
        ({}, None),
    ],
)
def test_legacy_trident_and_clam(tmp_path: Path, attributes: dict[str, Any], size: float | None) -> None:
    tables = {"features": FEATURES, "coords": COORDS.astype(np.int32)}
    found = read_features(_h5(tmp_path / "slide.h5", tables, {"coords": attributes}))
    _same(found)
    np.testing.assert_array_equal(found.coords(), COORDS)
    assert (found.patch_size_level0, found.mpp) == (size, None)


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        (STAMP, 1.0),
        ({"tile_size": 256.0, "unit": "um"}, 1.0),  # the second version
        ({}, 224 / 256),  # historic: 224 px lie apart what is 256 µm
        ({"tile_size": 224}, 224 / 256),
    ],
)
def test_stamps_places_are_level_0_pixels(tmp_path: Path, attributes: dict[str, Any], unit: float) -> None:
    """At 0.2526 µm/px a tile of 256 µm is 1013.46 px: places are the nearest whole pixels, not multiples of one."""
    mpp = 0.2526
    grid = np.array([(x, y) for x in range(30) for y in (0, 1, 57)]) * 256.0
    path = _stamp(tmp_path / "slide.h5", grid * unit, attributes)
    found = read_features(path, slide_mpp=mpp)
    np.testing.assert_array_equal(found.coords(), np.rint(grid / mpp).astype(np.int64))
    assert found.coords()[3].tolist() == [1013, 0]
    assert found.patch_size_level0 == pytest.approx(256 / mpp)
    known_px = "tile_size_px" in attributes or unit < 1
    assert found.mpp == (pytest.approx(256 / 224) if known_px else None)
    np.testing.assert_array_equal(
        found.read().numpy(), np.resize(FEATURES, (90, 6)).astype(np.float16).astype(np.float32)
    )
    lost = read_features(path)
    assert lost.patch_size_level0 is None
    with pytest.raises(
        NoPlacesError, match=r"coords in µm, and the slide's µm/px is unknown; .*data\.slides"
    ):
        lost.coords()


@given(
    pixels=st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)), min_size=1, max_size=20),
    mpp=st.floats(0.1, 1.0),
)
def test_any_pixel_survives_stamps_float32(
    tmp_path_factory: pytest.TempPathFactory, pixels: list[tuple[int, int]], mpp: float
) -> None:
    path = tmp_path_factory.mktemp("stamp") / "slide.h5"
    found = read_features(_stamp(path, np.array(pixels) * mpp, STAMP), slide_mpp=mpp)
    assert found.coords().tolist() == [list(pixel) for pixel in pixels]


def test_stamps_older_key(tmp_path: Path) -> None:
    path = _stamp(tmp_path / "slide.h5", COORDS * 0.25, STAMP, key="patch_embeddings")
    np.testing.assert_array_equal(read_features(path, slide_mpp=0.25).coords(), COORDS)


def test_stamp_without_a_unit_has_features_but_no_places(tmp_path: Path) -> None:
    found = read_features(_stamp(tmp_path / "slide.h5", COORDS, {}), slide_mpp=0.25)
    assert found.read().shape == (9, 6)
    with pytest.raises(NoPlacesError, match="does not say in which unit"):
        found.coords()


def test_stamps_slides_and_patients_are_refused(tmp_path: Path) -> None:
    path = _h5(tmp_path / "slide.h5", {"feats": FEATURES[:1]}, {"": {"feat_type": "patient"}})
    with pytest.raises(FeatureError, match="features of a patient; give the folder of features of tiles"):
        read_features(path)


@pytest.mark.parametrize(
    "content",
    [
        torch.from_numpy(FEATURES),  # CLAM, the authors
        torch.from_numpy(FEATURES).double(),
        FEATURES,  # TRIDENT
        [torch.from_numpy(row) for row in FEATURES],  # eva
        [torch.from_numpy(FEATURES[:4]), torch.from_numpy(FEATURES[4:])],
        {"features": torch.from_numpy(FEATURES)},
        {"features": FEATURES, "name": "slide"},
    ],
    ids=["tensor", "double", "numpy", "list of rows", "list of tables", "dict", "dict of numpy"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_pt(tmp_path: Path, content: object, zipped: bool) -> None:
    found = read_features(_pt(tmp_path / "slide.pt", content, _use_new_zipfile_serialization=zipped))
    _same(found)
    with pytest.raises(NoPlacesError, match="does not say where its patches lie; extract features into"):
        found.coords()


def test_pt_by_numpy_1(tmp_path: Path) -> None:
    """numpy's module had another name then, which is in the file."""
    pickled = pickle.dumps(FEATURES, protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in pickled
    path = _pt(tmp_path / "slide.pt", FEATURES)
    with zipfile.ZipFile(path) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as other:
        for name, data in entries.items():
            other.writestr(name, pickled if name.endswith("data.pkl") else data)
    _same(read_features(path))


def test_pt_with_places(tmp_path: Path) -> None:
    content = {"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(COORDS)}
    np.testing.assert_array_equal(read_features(_pt(tmp_path / "a.pt", content)).coords(), COORDS)
    content = {"features": FEATURES, "coords": COORDS}
    np.testing.assert_array_equal(read_features(_pt(tmp_path / "b.pt", content)).coords(), COORDS)


def test_half_precision(tmp_path: Path) -> None:
    halves = FEATURES.astype(np.float16)
    _same(read_features(_pt(tmp_path / "a.pt", torch.from_numpy(halves))), halves.astype(np.float32))
    brain = torch.from_numpy(FEATURES).bfloat16()
    _same(read_features(_pt(tmp_path / "b.pt", brain)), brain.float().numpy())


def _slideflow(folder: Path, settings: dict[str, Any] | None) -> Path:
    """Slideflow notes the centre of a tile, rounded down, and takes its extent as a whole number of pixels."""
    path = _pt(folder / "slide.pt", torch.from_numpy(FEATURES))
    extent = int(302 / 0.2526)
    np.savez(folder / "slide.index.npz", (COORDS + extent / 2).astype(np.int64))
    if settings is not None:
        (folder / "bags_config.json").write_text(json.dumps(settings))
    return path


def test_slideflow(tmp_path: Path) -> None:
    found = read_features(_slideflow(tmp_path, {"tile_px": 299, "tile_um": 302}), slide_mpp=0.2526)
    _same(found)
    np.testing.assert_array_equal(found.coords(), COORDS)
    assert (found.patch_size_level0, found.mpp) == (1195, 302 / 299)


@pytest.mark.parametrize(
    ("settings", "mpp"), [(None, 0.25), ({"tile_px": 299, "tile_um": "10x"}, 0.25), ({"tile_um": 302}, None)]
)
def test_slideflow_without_what_it_takes(tmp_path: Path, settings: Any, mpp: float | None) -> None:
    found = read_features(_slideflow(tmp_path, settings), slide_mpp=mpp)
    _same(found)
    with pytest.raises(NoPlacesError, match=r"has the centres of tiles; .* give the slides \(data\.slides\)"):
        found.coords()


class _Exploit:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploited",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (_Exploit(), {"features": _Exploit()}, np.array([_Exploit()], dtype=object)):
        path = _pt(tmp_path / "slide.pt", content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(FeatureError, match=r"slide\.pt cannot be read as tensors or arrays"):
            read_features(path)
    assert not (tmp_path / "exploited").exists()


def _nan() -> np.ndarray:
    broken = FEATURES.copy()
    broken[[2, 5], 1] = [np.nan, np.inf]
    return broken


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty TRIDENT": (lambda p: _trident(p / "s.h5", FEATURES[:0]), r"holds no patch: .* \(0, 6\); extract"),
    "slide features": (lambda p: _h5(p / "s.h5", {"features": FEATURES[0]}), "give the features of patches"),
    "patches": (lambda p: _h5(p / "s.h5", {"coords": COORDS}), r"holds \['coords'\], and none of features"),
    "unknown": (lambda p: _h5(p / "s.h5", {"x": COORDS, "y": COORDS}), r"holds \['x', 'y'\], and none"),
    "whole numbers": (lambda p: _h5(p / "s.h5", {"features": COORDS}), "no real numbers under 'features'"),
    "no HDF5": (lambda p: _pt(p / "s.h5", torch.ones(2, 2)), "cannot be read .*; write it again"),
    "other ending": (lambda p: p / "s.npy", r"ends in none of \.h5, \.pt"),
    "absent": (lambda p: p / "s.pt", "cannot be read as tensors"),
    "text": (lambda p: _pt(p / "s.pt", "features"), "holds a str, not a tensor"),
    "dict": (lambda p: _pt(p / "s.pt", {"feat": torch.ones(2, 2)}), r"holds \['feat'\]; features must be"),
    "no list": (lambda p: _pt(p / "s.pt", []), "holds a list of .*, not a tensor"),
    "mixed list": (lambda p: _pt(p / "s.pt", [torch.ones(3), "x"]), "a list of"),
    "uneven list": (lambda p: _pt(p / "s.pt", [torch.ones(3), torch.ones(4)]), "not a tensor .* or a list"),
    "empty tensor": (lambda p: _pt(p / "s.pt", torch.ones(0, 3)), "holds no patch"),
    "one vector": (lambda p: _pt(p / "s.pt", torch.ones(3)), r"features of shape \(3,\), not"),
    "integers": (lambda p: _pt(p / "s.pt", torch.ones(3, 3).long()), "holds torch.int64, not real numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path: Path, name: str) -> None:
    make, message = BROKEN[name]
    with pytest.raises(FeatureError, match=message):
        read_features(make(tmp_path))


def test_truncated_files_are_named(tmp_path: Path) -> None:
    for path in (_trident(tmp_path / "s.h5"), _pt(tmp_path / "s.pt", torch.from_numpy(FEATURES))):
        whole = path.read_bytes()
        for length in (0, 7, len(whole) // 2, len(whole) - 9):
            path.write_bytes(whole[:length])
            with pytest.raises(FeatureError, match="cannot be read"):
                read_features(path).read()


def test_nan_is_named_where_it_is_read(tmp_path: Path) -> None:
    for found in (
        read_features(_trident(tmp_path / "a.h5", _nan())),
        read_features(_pt(tmp_path / "b.pt", _nan())),
    ):
        with pytest.raises(FeatureError, match="NaN or infinite features in 2 of the 9 patches"):
            found.read()
        np.testing.assert_array_equal(found.read(np.array([0, 1])).numpy(), FEATURES[:2])


def test_finite_features_whose_sum_is_not_are_read(tmp_path: Path) -> None:
    large = np.full((3, 2), 3e38, np.float32)
    assert torch.from_numpy(large).sum().isinf()
    _pt(tmp_path / "s.pt", torch.from_numpy(large))
    np.testing.assert_array_equal(read_features(tmp_path / "s.pt").read().numpy(), large)


def test_damaged_places_are_named(tmp_path: Path) -> None:
    short = _h5(tmp_path / "a.h5", {"features": FEATURES, "coords": COORDS[:4]})
    with pytest.raises(FeatureError, match=r"coords int64 of \(4, 2\), not a whole \(x, y\) for each of 9"):
        read_features(short).coords()
    fractions = _h5(tmp_path / "b.h5", {"features": FEATURES, "coords": COORDS + 0.5})
    with pytest.raises(
        FeatureError, match=r"coords that are no whole pixels in 9 of 9 patches, first \(\d+\.5, "
    ):
        read_features(fractions).coords()
    nowhere = _h5(tmp_path / "c.h5", {"features": FEATURES})
    with pytest.raises(NoPlacesError, match=r"has no coords, .* it holds \['features'\]"):
        read_features(nowhere).coords()
    lost = _stamp(tmp_path / "d.h5", COORDS * np.nan, STAMP)
    with pytest.raises(FeatureError, match="coords that are no numbers"):
        read_features(lost, slide_mpp=0.25).coords()


@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f4", np.uint32])
def test_whole_coords_of_any_kind_are_read(tmp_path: Path, kind: Any) -> None:
    coords = COORDS.astype(kind)
    in_h5 = read_features(_h5(tmp_path / "a.h5", {"features": FEATURES, "coords": coords}))
    np.testing.assert_array_equal(in_h5.coords(), COORDS)
    assert in_h5.coords().dtype == np.int64
    own = torch.from_numpy(COORDS.astype(np.float32)).requires_grad_()
    in_pt = read_features(_pt(tmp_path / "b.pt", {"features": torch.from_numpy(FEATURES), "coords": own}))
    np.testing.assert_array_equal(in_pt.coords(), COORDS)


def _with_coords(path: Path, coords: object) -> Path:
    return _pt(path, {"features": torch.from_numpy(FEATURES), "coords": coords})


def _one_nan() -> torch.Tensor:
    return torch.from_numpy(COORDS).double().index_fill(0, torch.tensor(4), torch.nan)


BAD_COORDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "half of large numbers": (
        lambda p: _h5(p / "s.h5", {"features": FEATURES, "coords": (COORDS % 30_000).astype(np.float16)}),
        "float16 up to .*, which holds whole numbers to 2048 only",
    ),
    "brain floats": (
        lambda p: _with_coords(p / "s.pt", torch.from_numpy(COORDS).bfloat16()),
        "no table of numbers",
    ),
    "sparse": (
        lambda p: _with_coords(p / "s.pt", torch.from_numpy(COORDS).to_sparse()),
        "layout is sparse_coo",
    ),
    "uneven": (lambda p: _with_coords(p / "s.pt", [[1, 2], [3]]), "no table of numbers"),
    "one NaN": (lambda p: _with_coords(p / "s.pt", _one_nan()), r"in 1 of 9 patches, first \(nan, nan\)"),
    "infinite": (lambda p: _with_coords(p / "s.pt", torch.full((9, 2), torch.inf)), "float32 up to inf"),
    "words": (lambda p: _with_coords(p / "s.pt", [["1", "2"]] * 9), "not a whole"),
    "two batches": (lambda p: _with_coords(p / "s.pt", torch.zeros(2, 9, 2).long()), "not a whole"),
}


@pytest.mark.parametrize("name", BAD_COORDS)
def test_coords_that_may_lie_are_refused(tmp_path: Path, name: str) -> None:
    make, message = BAD_COORDS[name]
    found = read_features(make(tmp_path))
    _same(found)
    with pytest.raises(FeatureError, match=message):
        found.coords()


def test_small_whole_half_precision_coords_are_exact(tmp_path: Path) -> None:
    coords = np.arange(18).reshape(9, 2) * 120.0
    assert coords.max() < 2048
    path = _h5(tmp_path / "a.h5", {"features": FEATURES, "coords": coords.astype(np.float16)})
    np.testing.assert_array_equal(read_features(path).coords(), coords)


def test_a_batch_of_one_slide_is_a_slide(tmp_path: Path) -> None:
    tensor = torch.from_numpy(FEATURES)
    for path in (
        _h5(tmp_path / "a.h5", {"features": FEATURES[None], "coords": COORDS}),
        _h5(tmp_path / "b.h5", {"features": FEATURES[None], "coords": COORDS[None]}),
        _pt(tmp_path / "c.pt", tensor[None]),
        _pt(tmp_path / "d.pt", FEATURES[None]),
        _pt(tmp_path / "e.pt", {"features": tensor[None], "coords": torch.from_numpy(COORDS)[None]}),
        _pt(tmp_path / "f.pt", [tensor[None]]),
        _pt(tmp_path / "g.pt", [tensor[None, :4], tensor[None, 4:]]),
        _pt(tmp_path / "h.pt", [row[None] for row in tensor]),
    ):
        found = read_features(path)
        _same(found)
        if path.stem in "abe":
            np.testing.assert_array_equal(found.coords(), COORDS)
    tables = {"feats": FEATURES[None].astype(np.float16), "coords": COORDS[None] * 0.25}
    um = _h5(tmp_path / "i.h5", tables, {"": STAMP})
    np.testing.assert_array_equal(read_features(um, slide_mpp=0.25).coords(), COORDS)


def test_a_batch_of_many_patches_is_read_in_blocks(tmp_path: Path) -> None:
    many = np.arange(10_000 * 3, dtype=np.float32).reshape(1, 10_000, 3)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["features"] = many
    found = read_features(tmp_path / "s.h5")
    np.testing.assert_array_equal(found.read().numpy(), many[0])
    rows = np.array([0, 4095, 4096, 9999])
    np.testing.assert_array_equal(found.read(rows).numpy(), many[0, rows])


@pytest.mark.parametrize("wrap", [torch.nn.Parameter, torch.nn.Buffer, lambda x: x.requires_grad_()])
def test_what_training_left_on_a_tensor_is_taken_off(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    found = read_features(_pt(tmp_path / "s.pt", wrap(torch.from_numpy(FEATURES.copy()))))
    _same(found)
    assert not found.read().requires_grad


def test_numpys_other_byte_order(tmp_path: Path) -> None:
    _same(read_features(_pt(tmp_path / "s.pt", FEATURES.astype(">f4"))))


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda x: x.to_sparse(), "layout is sparse_coo; write it again as a dense one"),
        (lambda x: x.to_sparse_csr(), "layout is sparse_csr"),
        (lambda x: x.to_sparse_csc(), "layout is sparse_csc"),
        (lambda x: torch.nested.nested_tensor([x, x[:3]]), "layout is nested"),
        (lambda x: x.to("meta"), "a tensor without numbers"),
        (lambda x: [x.to_sparse(), x], "layout is sparse_coo"),
        (lambda x: {"features": x.to_sparse()}, "layout is sparse_coo"),
        (
            lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            "cannot be read as tensors|not real numbers",
        ),
        (lambda x: torch.complex(x, x), "complex64, not real numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of torch, about nested and sparse tensors
def test_tensors_that_are_no_table_are_named(
    tmp_path: Path, convert: Callable[[Any], Any], message: str
) -> None:
    path = _pt(tmp_path / "s.pt", convert(torch.from_numpy(FEATURES)))
    with pytest.raises(FeatureError, match=message):
        read_features(path)


@pytest.mark.parametrize("shape", [(0, 6), (1, 0, 6), (0,)])
def test_files_of_no_patch_are_told_apart(tmp_path: Path, shape: tuple[int, ...]) -> None:
    _pt(tmp_path / "a.pt", torch.empty(shape))
    _h5(tmp_path / "b.h5", {"features": np.empty(shape, np.float32)})
    _pt(tmp_path / "c.pt", torch.ones(2, 3))
    _pt(tmp_path / "d.pt", "damaged")
    assert FeatureFolder(tmp_path).empty() == ["a", "b"]
    for name in ("a.pt", "b.h5"):
        with pytest.raises(FeatureError, match="holds no patch"):
            read_features(tmp_path / name)


def test_upper_case_endings_and_hidden_files(tmp_path: Path) -> None:
    _trident(tmp_path / "A.H5")
    _pt(tmp_path / "B.PT", FEATURES)
    (tmp_path / "._A.H5").write_bytes(b"\0\5\26\7")  # what macOS leaves on other file systems
    folder = FeatureFolder(tmp_path)
    assert list(folder.files) == ["A", "B"]
    for slide in folder.files:
        _same(folder.open(slide))


def test_a_folder_may_be_of_several_tools(tmp_path: Path) -> None:
    _trident(tmp_path / "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.h5")
    _stamp(tmp_path / "b.h5", COORDS * 0.25, STAMP)
    _stamp(tmp_path / "c.h5", COORDS * 0.5, STAMP)
    _pt(tmp_path / "d.pt", FEATURES)
    (tmp_path / "notes.txt").write_text("not features")
    folder = FeatureFolder(tmp_path, slide_mpp={"b": 0.25}, assume_mpp=0.5)
    assert list(folder.files) == ["TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF", "b", "c", "d"]
    assert {folder.shape(slide) for slide in folder.files} == {(9, 6)}
    for slide in list(folder.files)[:3]:
        np.testing.assert_array_equal(folder.open(slide).coords(), COORDS)


def test_folders_that_say_nothing_or_too_much(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"holds no \.h5 or \.pt file of features; check the path"):
        FeatureFolder(tmp_path)
    for inside in ("h5_files", "pt_files"):
        (tmp_path / inside).mkdir()
    _trident(tmp_path / "h5_files/s.h5")
    _pt(tmp_path / "pt_files/s.pt", FEATURES)
    with pytest.raises(FeatureError, match=r"give one of its folders \['h5_files', 'pt_files'\]"):
        FeatureFolder(tmp_path)
    _trident(tmp_path / "s.h5")
    _pt(tmp_path / "s.pt", FEATURES)
    with pytest.raises(FeatureError, match=r"s\.h5 and s\.pt are both of 's'; remove one"):
        FeatureFolder(tmp_path)


def test_without_h5py_the_extra_is_named(tmp_path: Path) -> None:
    path = _trident(tmp_path / "s.h5")
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from e2e_abmilx.data.features import FeatureError, read_features\n"
        f"try: read_features({str(path)!r})\n"
        "except FeatureError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "`pip install e2e-abmilx[features]`" in found.stdout


def test_large_tensors_are_mapped_not_loaded(tmp_path: Path) -> None:
    """Twenty rows of 200 MB of features take less than 60 MB."""
    path = _pt(tmp_path / "s.pt", torch.ones(50_000, 1024))
    code = (
        "import resource, numpy as np\n"
        "from e2e_abmilx.data.features import read_features\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\n"
        f"assert read_features({str(path)!r}).read(np.arange(0, 50_000, 2500)).sum() == 20 * 1024\n"
        "print(peak() - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 60
