import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_files import COORDS, FEATURES, assert_same, write_pt

from e2e_abmilx.data.features import FeatureError, NoCoordsError, read_features


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
    found = read_features(write_pt(tmp_path / "slide.pt", content, _use_new_zipfile_serialization=zipped))
    assert_same(found)
    with pytest.raises(NoCoordsError, match="does not state the coordinates of its patches; extract features into"):
        found.coords()


def test_pt_by_numpy_1(tmp_path: Path) -> None:
    """The file contains the name of numpy's module, which was different in numpy 1."""
    pickled = pickle.dumps(FEATURES, protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in pickled
    path = write_pt(tmp_path / "slide.pt", FEATURES)
    with zipfile.ZipFile(path) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as other:
        for name, data in entries.items():
            other.writestr(name, pickled if name.endswith("data.pkl") else data)
    assert_same(read_features(path))


def test_pt_with_coordinates(tmp_path: Path) -> None:
    content = {"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(COORDS)}
    np.testing.assert_array_equal(read_features(write_pt(tmp_path / "a.pt", content)).coords(), COORDS)
    content = {"features": FEATURES, "coords": COORDS}
    np.testing.assert_array_equal(read_features(write_pt(tmp_path / "b.pt", content)).coords(), COORDS)


def test_half_precision(tmp_path: Path) -> None:
    halves = FEATURES.astype(np.float16)
    assert_same(read_features(write_pt(tmp_path / "a.pt", torch.from_numpy(halves))), halves.astype(np.float32))
    brain = torch.from_numpy(FEATURES).bfloat16()
    assert_same(read_features(write_pt(tmp_path / "b.pt", brain)), brain.float().numpy())


class _Exploit:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch exploited",)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_pickled_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (_Exploit(), {"features": _Exploit()}, np.array([_Exploit()], dtype=object)):
        path = write_pt(tmp_path / "slide.pt", content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(FeatureError, match=r"slide\.pt cannot be read as tensors or arrays"):
            read_features(path)
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("wrap", [torch.nn.Parameter, torch.nn.Buffer, lambda x: x.requires_grad_()])
def test_gradients_are_removed(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    found = read_features(write_pt(tmp_path / "s.pt", wrap(torch.from_numpy(FEATURES.copy()))))
    assert_same(found)
    assert not found.read().requires_grad


def test_arrays_of_the_other_byte_order(tmp_path: Path) -> None:
    assert_same(read_features(write_pt(tmp_path / "s.pt", FEATURES.astype(">f4"))))


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda x: x.to_sparse(), "layout is sparse_coo; write it again as a dense tensor"),
        (lambda x: x.to_sparse_csr(), "layout is sparse_csr"),
        (lambda x: x.to_sparse_csc(), "layout is sparse_csc"),
        (lambda x: torch.nested.nested_tensor([x, x[:3]]), "layout is nested"),
        (lambda x: x.to("meta"), "a tensor without data"),
        (lambda x: [x.to_sparse(), x], "layout is sparse_coo"),
        (lambda x: {"features": x.to_sparse()}, "layout is sparse_coo"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "cannot be read as tensors|not real numbers"),
        (lambda x: torch.complex(x, x), "complex64, not real numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch warns about nested and sparse tensors
def test_tensors_that_are_not_a_table_are_named(tmp_path: Path, convert: Callable[[Any], Any], message: str) -> None:
    path = write_pt(tmp_path / "s.pt", convert(torch.from_numpy(FEATURES)))
    with pytest.raises(FeatureError, match=message):
        read_features(path)


def test_large_tensors_are_memory_mapped(tmp_path: Path) -> None:
    """Reading twenty rows of 200 MB of features takes less than 60 MB."""
    path = write_pt(tmp_path / "s.pt", torch.ones(50_000, 1024))
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
