"""Imported folders of images: coordinates come from names, and a bad image fails its slide alone."""

import math
from pathlib import Path

import numpy as np
import pytest
from foreign_files import P, jpeg, picture
from PIL import Image
from stored_patches import psnr

from e2e_abmilx.cache.imports import import_images
from e2e_abmilx.errors import SourceError
from e2e_abmilx.store import PatchStore


def test_coordinates_are_read_from_names(tmp_path: Path) -> None:
    for slide in ("s.1", "t"):
        (tmp_path / "in" / slide).mkdir(parents=True)
        for i in range(5):
            name = f"{slide}_{i * 100}_{7 * i}" if slide == "s.1" else f"{i * 100}_{7 * i}"
            Image.fromarray(picture(i)).save(tmp_path / f"in/{slide}/{name}.png")
    (tmp_path / "in/t/notes.txt").write_text("not an image")
    rows = import_images(tmp_path / "in", tmp_path / "out", mpp=0.5, workers=2)
    assert [(row.slide, row.status, row.patches) for row in rows] == [("s.1", "done", "5"), ("t", "done", "5")]
    for slide in ("s.1", "t"):
        store = PatchStore(tmp_path / f"out/{slide}.zarr")
        assert store.scales == (0.5,)
        patches, coords = store.read(range(5)), store.coords()
        for patch, (x, y) in zip(patches, coords, strict=True):
            assert y == 7 * x / 100
            assert psnr(patch, picture(x // 100)) > 30


@pytest.mark.parametrize("names", [("0_0", "0_32", "last"), ("p0", "p1", "p2"), ("u_0_0", "u_0_1", "u_0_2")])
def test_coordinates_are_unknown_if_one_name_has_none(tmp_path: Path, names: tuple[str, ...]) -> None:
    (tmp_path / "in/s").mkdir(parents=True)
    for i, name in enumerate(names):
        Image.fromarray(picture(i)).save(tmp_path / f"in/s/{name}.tif")
    (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
    assert row.status == "done"
    store = PatchStore(tmp_path / "out/s.zarr")
    assert (store.coords() == -1).all()
    assert math.isnan(store.scales[0])


def test_baseline_jpegs_are_stored_unchanged(tmp_path: Path) -> None:
    (tmp_path / "in/s").mkdir(parents=True)
    streams = [jpeg(0), jpeg(1, progressive=True), jpeg(2, subsampling=0)]
    for i, stream in enumerate(streams):
        (tmp_path / f"in/s/{i}.jpg").write_bytes(stream)
    Image.fromarray(picture(3)).convert("L").save(tmp_path / "in/s/3.jpeg")
    Image.fromarray(picture(4)).convert("RGBA").save(tmp_path / "in/s/4.png")
    (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
    assert (row.status, row.patches) == ("done", "5")
    store = PatchStore(tmp_path / "out/s.zarr")
    kept = store.read_encoded(range(3))
    assert [a == b for a, b in zip(kept, streams, strict=True)] == [True, False, True]
    patches = store.read(range(5))
    for i in (0, 1, 2, 4):
        assert psnr(patches[i], picture(i)) > 28
    assert (patches[3] == patches[3][..., :1]).all()


@pytest.mark.parametrize("bad", ["truncated.png", "truncated.jpg", "text.png", "small.png", "deep.png", "wide.png"])
def test_a_bad_image_fails_its_slide(tmp_path: Path, bad: str) -> None:
    for slide in ("bad", "good"):
        (tmp_path / "in" / slide).mkdir(parents=True)
        Image.fromarray(picture(0)).save(tmp_path / f"in/{slide}/0.png")
    file = tmp_path / "in/bad" / bad
    if bad == "truncated.png":
        file.write_bytes((tmp_path / "in/bad/0.png").read_bytes()[:-100])
    elif bad == "truncated.jpg":
        file.write_bytes(jpeg(0)[:-200])
    elif bad == "text.png":
        file.write_text("no image")
    elif bad == "small.png":
        Image.fromarray(picture(0, P // 2)).save(file)
    elif bad == "wide.png":
        Image.fromarray(np.hstack([picture(0)] * 2)).save(file)
    else:
        Image.fromarray(np.full((P, P), 60_000, np.uint16)).save(file)
    failed, done = import_images(tmp_path / "in", tmp_path / "out", workers=1)
    assert (failed.status, done.status) == ("failed", "done")
    assert bad in failed.reason
    assert not (tmp_path / "out/bad.zarr").exists()
    file.unlink()
    assert {row.status for row in import_images(tmp_path / "in", tmp_path / "out", workers=1)} == {"done"}


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no folder"):
        import_images(tmp_path, tmp_path / "out")
    (tmp_path / "in/s").mkdir(parents=True)
    (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
    assert "holds no image" in row.reason
